"""Whatever a value is, it is shown: what JSON cannot say has a stand-in, and nothing raises."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest

from wakeline.presentable import DEEPEST, presentable, said


class Fails:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    id: str
    items: list[Any]


def cycle() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def bush() -> list[Any]:
    """Small to hold, and 2^60 values to write down."""
    value: list[Any] = ["leaf"]
    for _ in range(60):
        value = [value, value]
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, 2.5, True, None, "é"]}, {"a": [1, 2.5, True, None, "é"]}),
        ({1: "one", Colour.RED: Colour.RED, Fails(): 1}, {"1": "one", "red": "red", "<Fails>": 1}),
        ([float("nan"), float("inf"), 2**70], [None, None, str(2**70)]),
        (b"\x00\xff", "AP8="),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (Order("\ud83d", [Fails()]), {"id": "\ufffd", "items": ["<Fails>"]}),
        (cycle(), [1, {"again": "… (itself)"}]),
        ({1}, [1]),
        (10**5000, "<int>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_shown_as_json(value: Any, shown: Any) -> None:
    assert presentable(value) == shown


@pytest.mark.parametrize("value", [nested(50_000), bush(), {"a": nested(900)}])
def test_values_that_are_too_deep_or_too_large_are_cut(value: Any) -> None:
    written = json.dumps(presentable(value), ensure_ascii=False)
    assert "… (too" in written
    assert len(written) < 10_000_000


def test_as_deep_as_it_may_be_nothing_is_cut() -> None:
    value = nested(DEEPEST - 1)
    assert presentable(value) == value


def test_a_reader_that_fails_has_a_stand_in() -> None:
    def read(value: Any) -> Any:
        raise LookupError

    assert presentable([Fails()], read) == ["<Fails>"]
    assert said(Fails()) == "<Fails>"
