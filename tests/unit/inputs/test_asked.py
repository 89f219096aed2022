"""Which requests are the same input."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wakeline.gateway.inputs import Asked

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
    ],
)
def test_anything_else_does(changed: dict[str, Any]) -> None:
    assert digest() != digest(**changed)
