"""When a reader looks again."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from wakeline.streams import pace as pacing
from wakeline.streams.budget import update_pause
from wakeline.streams.pace import Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(pacing, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def pace(milliseconds: float = 100) -> Pace:
    return Pace(timedelta(milliseconds=milliseconds))


def test_the_first_look_is_at_once(clock: SimpleNamespace) -> None:
    new = pace()
    assert (new.rest, new.patience(followed=False), new.patience(followed=True)) == (0, 0, 0)


def test_half_of_the_time_is_left_to_others(clock: SimpleNamespace) -> None:
    reader = pace()
    rests = []
    for seconds in (0.001, 0.02, 0.3, 60):
        reader.looked(found=True, more=False, seconds=seconds)
        rests.append(reader.rest)
    assert rests == pytest.approx([0.005, 0.02, 0.3, 1.0])


def test_more_is_read_at_once(clock: SimpleNamespace) -> None:
    reader = pace()
    reader.looked(found=True, more=True, seconds=0.3)
    assert (reader.rest, reader.patience(followed=False)) == (0, 0)


def test_pauses_grow_with_the_silence(clock: SimpleNamespace) -> None:
    reader = pace()
    reader.looked(found=True, more=False, seconds=0.004)
    told = []
    for silence in (0, 0.08, 0.72, 60):
        clock.now += silence
        reader.looked(found=False, more=False, seconds=0.004)
        told.append(round(reader.rest + reader.patience(followed=False), 3))
    assert told == [0.005, 0.01, 0.1, 1.0]


def test_who_is_told_hardly_looks_unasked(clock: SimpleNamespace) -> None:
    reader = pace()
    reader.looked(found=True, more=False, seconds=0.004)
    assert (reader.rest, reader.patience(followed=True)) == pytest.approx((0.005, 10))


def test_a_cooldown_of_nothing_is_back_to_back(clock: SimpleNamespace) -> None:
    reader = pace(0)
    reader.looked(found=True, more=False, seconds=0.3)
    assert (reader.rest, reader.patience(followed=False)) == (0, 0)
    clock.now += 60
    # But silence is no reason to ask hundreds of times a second.
    assert reader.patience(followed=False) == 0.1


def test_updates_keep_the_cooldown(clock: SimpleNamespace) -> None:
    reader = pace()
    rests = []
    for more, used in ((False, 1), (True, 1), (True, 1500), (False, 2000)):
        reader.updated(more=more, used=used)
        rests.append(reader.rest)
    assert rests == [0.1, 0, 1.2, 30]


def test_the_first_half_of_the_updates_goes_at_the_pace_asked_for() -> None:
    assert [update_pause(used) for used in (0, 999, 1000, 1400, 1980, 3000)] == [0, 0, 0.6, 1, 30, 30]


def test_what_is_left_lasts() -> None:
    used, seconds = 1000, 0.0
    while used < 2000:
        seconds += update_pause(used)
        used += 1
    # Longer than the 33 minutes in which five batches a second use up the signals of a run.
    assert seconds > 33 * 60
