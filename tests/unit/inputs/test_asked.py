"""Which requests are the same input."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wakeline.errors import RequestInvalidError, ValueInvalidError
from wakeline.gateway.inputs import Asked, check_key
from wakeline.gateway.inputs.arguments import Arguments
from wakeline.text import read_whole

BODY: dict[str, Any] = {"id": "k", "kind": "signal", "name": "say", "args": [{"a": 1, "b": [2]}], "wait": 1}


def digest(by: str = "alice", **changed: Any) -> str:
    return msgspec.json.decode(msgspec.json.encode({**BODY, **changed}), type=Asked).digest(by)


def test_the_order_of_members_and_the_wait_make_no_other_input() -> None:
    assert digest() == digest(args=[{"b": [2], "a": 1}], wait=5)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "update"},
        {"name": "shout"},
        {"args": []},
        {"run": "r"},
        {"device": "phone"},
        {"by": "bob"},
        {"start": "chat"},
        {"expect": 3},
    ],
)
def test_anything_else_does(changed: dict[str, Any]) -> None:
    assert digest() != digest(**changed)


def asked(body: bytes) -> Asked:
    found = read_whole(msgspec.json.Decoder(Asked).decode, body)
    found.check()
    return found


HOSTILE = [
    b"1e999",
    b"123456789012345678901234567890",
    b'"\\ud800"',
    b"-0.0",
    b'{"":[{}]}',
    b'{"a":1,"a":2}',
    b"1" * 5_000,
]


@pytest.mark.parametrize("value", HOSTILE)
def test_whatever_json_the_arguments_are_they_have_a_digest(value: bytes) -> None:
    body = b'{"id":"k","kind":"signal","name":"say","args":[%b]}'
    assert asked(body % value).digest("") == asked(body % (b" \n" + value + b" ")).digest("")
    assert asked(body % value).digest("") != asked(body % b'"another"').digest("")


@pytest.mark.parametrize(
    ("one", "other"), [("1", '"1"'), ("1", "1.0"), ("1e999", "2e999"), ("[]", "{}"), ("null", '""')]
)
def test_values_that_look_alike_are_not_the_same(one: str, other: str) -> None:
    body = '{"id":"k","kind":"signal","name":"say","args":[%s]}'
    assert asked((body % one).encode()).digest("") != asked((body % other).encode()).digest("")


@pytest.mark.parametrize("value", HOSTILE)
def test_whatever_json_the_arguments_are_a_schema_allows_or_refuses_them(value: bytes) -> None:
    body = b'{"id":"k","kind":"signal","name":"say","args":[%b]}' % value
    with pytest.raises(ValueInvalidError):
        Arguments({"say": {"maxItems": 0}}).check("say", asked(body))


@pytest.mark.parametrize("key", ["", " ", "a b", ".", "..", "\n", "\x7f", "é", "x" * 129])
def test_keys_that_no_address_can_have_are_refused(key: str) -> None:
    with pytest.raises(RequestInvalidError):
        check_key(key)


@pytest.mark.parametrize("key", ["~", "...", "a/b", "%2e%2e", "?#&", "';DROP/**/TABLE", "x" * 128])
def test_all_other_visible_keys_are_accepted(key: str) -> None:
    assert check_key(key) == key
