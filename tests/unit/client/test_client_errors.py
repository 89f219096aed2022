"""What the gateway refuses arrives as the error that it is."""

from __future__ import annotations

import subprocess
import sys

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from wakeline import errors
from wakeline.client import RefusedError
from wakeline.client.errors import refusal
from wakeline.client.reach import unavailable
from wakeline.errors import WakelineError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, WakelineError) and kind is not WakelineError and "code" in vars(kind)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_code_is_raised_as_its_class(kind: type[WakelineError]) -> None:
    error = refusal(499, {"code": kind.code, "message": "m", "hint": "h", "expected": 4})
    assert isinstance(error, kind)
    assert isinstance(error, RefusedError)
    assert type(error).__name__ == kind.__name__
    assert (error.code, error.status, error.message, error.hint) == (kind.code, 499, "m", "h")
    assert error.wire() == {"error": {"code": kind.code, "message": "m", "hint": "h", "expected": 4}}
    assert str(error) == "m. h"


def test_a_code_of_a_later_version_is_a_refusal_like_any_other() -> None:
    error = refusal(409, {"code": "of_tomorrow", "message": "m", "hint": "h"})
    assert type(error) is RefusedError
    assert error.code == "of_tomorrow"


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys, wakeline; print([m for m in sys.modules if m in ('aiohttp', 'msgspec', 'wakeline.client')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys, wakeline; wakeline.SessionClient; print('temporalio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_gateway_that_does_no_tls_is_reported_with_what_to_write() -> None:
    key = ConnectionKey("127.0.0.1", 7777, True, True, None, None, None)
    error = unavailable("https://127.0.0.1:7777", aiohttp.ClientConnectorSSLError(key, OSError(1, "wrong version")))
    assert error.message == (
        "the gateway cannot be reached: TLS failed (a gateway itself speaks plain HTTP: http://, unless a proxy does TLS)"
    )


def test_a_certificate_that_is_not_trusted_is_reported_in_words() -> None:
    key = ConnectionKey("127.0.0.1", 7777, True, True, None, None, None)
    error = unavailable("https://127.0.0.1:7777", aiohttp.ClientConnectorCertificateError(key, ValueError("expired")))
    assert error.message == "the gateway cannot be reached: TLS failed: its certificate is not trusted here"


def test_a_connection_that_was_cut_is_reported_in_words() -> None:
    error = unavailable("http://127.0.0.1:7777", aiohttp.ClientPayloadError("Response payload is not completed"))
    assert error.message == "the gateway cannot be reached: the connection was cut in the middle of an answer"
