"""Errors of calls to a gateway, from its answers and from failed connections.

Messages are without the gateway's URL, because an activity's failure shows them to viewers, and so are causes: hence aiohttp's
error is none. The URL is in the errors' notes, which tracebacks and the commands print.
"""

from __future__ import annotations

import os
import re
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from wakeline.client.errors import NOT_A_GATEWAY, refusal
from wakeline.errors import (
    RequestInvalidError,
    TokenExpiredError,
    TokenInvalidError,
    TokenMissingError,
    UnavailableError,
    WakelineError,
)

E = TypeVar("E", bound=WakelineError)
GIVE_TOKEN: Final = "Pass token=…, or set WAKELINE_TOKEN; `wakeline token --allow {}` prints one."
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


def checked_url(url: str) -> str:
    """Return a gateway's URL without a slash at its end.

    Raises:
        RequestInvalidError: It is none.
    """
    try:
        parsed = URL(url)
        good = parsed.scheme in ("http", "https") and bool(parsed.host) and parsed.port is not None
    except ValueError:
        good = False
    if not good:
        raise noted(
            RequestInvalidError(
                "expected a URL such as http://127.0.0.1:7777, got another text",
                hint="Write http:// or https://, the host and, unless it is the usual one, the port, in url=… (--url) or "
                "WAKELINE_URL.",
            ),
            url,
        )
    return url.rstrip("/")


def unavailable(url: str, error: BaseException | str) -> UnavailableError:
    """Return the error of a connection that cannot be made, or broke."""
    return noted(UnavailableError(f"the gateway cannot be reached: {reason(error)}"), url)


def not_a_gateway(url: str, error: BaseException) -> WakelineError | None:
    """Return the refusal of what answers, but not in HTTP; None where the error is another one."""
    if not isinstance(error, aiohttp.ClientResponseError) or isinstance(error, aiohttp.WSServerHandshakeError):
        return None
    message = "expected a Wakeline gateway, got an answer that is not HTTP"
    return noted(refusal(error.status, {"message": message, "hint": NOT_A_GATEWAY}), url)


def noted(error: E, url: str) -> E:
    """Return the error with a note of the gateway's URL."""
    error.add_note(f"the gateway: {url}")
    return error


def advised(refused: WakelineError, token: str | None, action: str) -> WakelineError:
    """Return a refusal with what to do about the token on this side.

    Args:
        refused: The gateway's refusal.
        token: The token that was sent.
        action: What it was sent for, as `wakeline token --allow` names it.
    """
    if token is None:
        if isinstance(refused, TokenMissingError):
            refused.hint = GIVE_TOKEN.format(action)
        return refused
    source = "WAKELINE_TOKEN" if token == os.environ.get("WAKELINE_TOKEN") else "token=… (--token)"
    if isinstance(refused, TokenExpiredError):
        refused.hint = (
            f"The token came from {source}: put a fresh one there, or pass a function as token=… that gets one."
        )
    elif isinstance(refused, TokenInvalidError):
        refused.hint = f"The token came from {source}. {refused.hint}"
    return refused


def reason(error: BaseException | str) -> str:
    """Return what failed, without the address that aiohttp's messages name."""
    if isinstance(error, str):
        return error
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"it answered {error.status}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS failed ({type(error).__name__})"
    found = _ERRNO.search(str(error))
    number = getattr(getattr(error, "os_error", error), "errno", None) or (int(found[1]) if found else None)
    if number is not None and number > 0:
        return os.strerror(number).lower()
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return type(error).__name__
