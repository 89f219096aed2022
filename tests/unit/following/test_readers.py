"""Readers of sessions of which no run is followed: when Temporal is asked for their workflow."""

from __future__ import annotations

from wakeline.gateway.following.finding import readers as reading
from wakeline.gateway.following.finding.readers import Readers


def test_temporal_is_asked_again_within_the_time_that_sweeps_cover() -> None:
    now = 0.0
    readers = Readers(10.0, lambda: now)
    assert not readers.need_not_ask("a", "life")
    readers.asked("a", "life")
    assert readers.need_not_ask("a", "life")
    assert not readers.need_not_ask("a", "the next life")
    now = 301.0
    assert not readers.need_not_ask("a", "life")


def test_a_session_that_was_read_is_looked_for_until_it_is_read_no_more() -> None:
    now = 0.0
    readers = Readers(10.0, lambda: now)
    readers.came("a")
    now = 8.0
    readers.came("b")
    assert list(readers.sessions()) == ["a", "b"]
    now = 12.0
    assert list(readers.sessions()) == ["b"]
    readers.asked("b", "life")
    readers.forget("b")
    assert not readers.sessions()
    assert not readers.need_not_ask("b", "life")


def test_as_many_sessions_are_remembered_as_there_is_room_for() -> None:
    readers = Readers(10.0, lambda: 0.0)
    for number in range(reading._KEPT + 5):
        readers.came(str(number))
        readers.asked(str(number), "life")
    assert len(readers.sessions()) == reading._KEPT
    assert not readers.need_not_ask("0", "life")
