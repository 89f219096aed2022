"""What becomes of a batch follows from the publisher's position alone, whatever the engine."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import batch
from wakeline.errors import (
    AttemptFencedError,
    EpochChangedError,
    SequenceGapError,
    SessionClosedError,
    SessionDeletedError,
    StreamConflictError,
)
from wakeline.gateway.log import Append, Position, Publication
from wakeline.gateway.log.plan import Plan, plan_append

POSITIONS = st.none() | st.builds(Position, st.integers(1, 3), st.integers(0, 6))


class Life(NamedTuple):
    epoch: str
    closed: bool
    order: str


def planned(append: Append, position: Position | None, *, epoch: str | None, closed: bool, order: str = "") -> Plan:
    return plan_append(append, position, None if epoch is None else Life(epoch, closed, order))


def outcome(append: Append, position: Position | None, *, closed: bool = False) -> Plan | type[Exception] | int:
    try:
        return planned(append, position, epoch="e", closed=closed)
    except SequenceGapError as error:
        return error.expected
    except (AttemptFencedError, SessionClosedError) as error:
        return type(error)


@given(POSITIONS, st.integers(1, 3), st.integers(0, 8), st.integers(1, 4), st.booleans(), st.booleans())
def test_a_batch_is_trimmed_refused_or_taken_by_its_publishers_position(
    position: Position | None, attempt: int, sequence: int, count: int, close: bool, closed: bool
) -> None:
    events = batch("s", *range(count)).events
    append = Append("s", events, Publication("p", attempt, sequence), close=close)
    begins = position is None or attempt > position.attempt
    expected = 0 if position is None or begins else position.next_sequence
    there = max(0, min(expected - sequence, count))
    got = outcome(append, position, closed=closed)
    if closed:
        whole = position is not None and attempt == position.attempt and there == count
        assert got == (Plan(there=count, duplicate=True) if whole else SessionClosedError)
    elif position is not None and attempt < position.attempt:
        assert got is AttemptFencedError
    elif sequence > expected:
        assert got == expected
    else:
        assert got == Plan(there, begins, there < count, close, duplicate=there > 0)


@given(POSITIONS, st.integers(0, 8), st.integers(1, 5))
def test_a_batch_that_stands_for_a_range_is_there_as_a_whole_or_not_at_all(
    position: Position | None, sequence: int, covers: int
) -> None:
    attempt = position.attempt if position is not None else 1
    append = Append("s", (), Publication("p", attempt, sequence, covers))
    expected = position.next_sequence if position is not None else 0
    got = outcome(append, position)
    if sequence == expected:
        assert got == Plan(0, position is None, advances=True)
    elif sequence + covers <= expected:
        assert got == Plan(1, duplicate=True)
    else:
        assert got == expected


@given(st.integers(0, 5))
def test_only_a_first_batch_creates_a_session(sequence: int) -> None:
    append = Append("s", batch("s", 1).events, Publication("p", 1, sequence))
    if sequence:
        with pytest.raises(SessionDeletedError):
            planned(append, None, epoch=None, closed=False)
    else:
        assert planned(append, None, epoch=None, closed=False) == Plan(0, begins=True, advances=True)


def test_a_batch_for_another_life_is_refused() -> None:
    for epoch in (None, "other"):
        with pytest.raises(EpochChangedError):
            planned(Append("s", batch("s", 1).events, epoch="e"), None, epoch=epoch, closed=False)


def test_a_batch_without_a_publisher_is_always_new() -> None:
    append = Append("s", batch("s", 1).events, close=True)
    assert planned(append, None, epoch="e", closed=False) == Plan(closes=True)
    with pytest.raises(SessionClosedError):
        planned(append, None, epoch="e", closed=True)


@given(st.text("abB", max_size=2), st.text("abB", max_size=2))
def test_an_order_must_come_after_the_last_one(order: str, last: str) -> None:
    append = Append("s", batch("s", 1).events, order=order)
    if order and order <= last:
        with pytest.raises(StreamConflictError, match="after"):
            planned(append, None, epoch="e", closed=False, order=last)
    else:
        assert planned(append, None, epoch="e", closed=False, order=last) == Plan(order=order or last)


@pytest.mark.parametrize("closed", [False, True])
def test_a_batch_that_the_log_has_is_answered_whatever_its_order(closed: bool) -> None:
    append = Append("s", batch("s", 1).events, Publication("p"), order="a")
    assert planned(append, Position(1, 1), epoch="e", closed=closed, order="b") == Plan(1, duplicate=True, order="b")
