"""Times are kept in order, however many there are."""

from __future__ import annotations

from wakeline.gateway.runtime import Timetable


def due(timetable: Timetable[str], now: float) -> list[str]:
    found: list[str] = []
    while (key := timetable.pop(now)) is not None:
        found.append(key)
    return found


def test_keys_are_due_in_their_order_and_removed_ones_never() -> None:
    timetable = Timetable[str]()
    assert [timetable.put(key, at) for key, at in (("c", 3.0), ("a", 1.0), ("b", 2.0))] == [True, True, False]
    timetable.remove("a")
    assert timetable.first() == 2.0
    assert due(timetable, 1.9) == []
    assert due(timetable, 3.0) == ["b", "c"]
    assert timetable.first() is None


def test_a_time_that_is_put_again_counts_once() -> None:
    timetable = Timetable[str]()
    for at in (1.0, 5.0, 5.0):
        timetable.put("a", at)
    assert due(timetable, 4.0) == []
    assert due(timetable, 5.0) == ["a"]
    assert timetable.put("a", 5.0)
    assert due(timetable, 9.0) == ["a"]


def test_a_key_can_only_be_due_earlier_than_it_is() -> None:
    timetable = Timetable[str]()
    for at in (5.0, 7.0, 3.0, 4.0):
        timetable.put_earlier("a", at)
    assert timetable.first() == 3.0
    assert due(timetable, 9.0) == ["a"]


def test_keys_that_are_removed_or_due_at_once_leave_nothing() -> None:
    timetable = Timetable[str]()
    for number in range(10_000):
        timetable.put(str(number), 1e12 + number)
        timetable.remove(str(number))
    for _ in range(10_000):  # a session with a message that is due tomorrow, and events that are due now
        timetable.put_earlier("busy", 1e12)
        timetable.put_earlier("busy", 0.0)
        assert timetable.pop(1.0) == "busy"
    assert len(timetable) < 2_000
    assert timetable.first() is None
