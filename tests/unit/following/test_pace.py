"""The pace at which a stream is read."""

from __future__ import annotations

from typing import TypedDict

import pytest

from wakeline.gateway.following.life.answers import Answer, Copied
from wakeline.gateway.following.life.pace import Pace, Wait

FASTEST, SLOWEST = 0.05, 20.0
NEWS, SILENCE = Copied(Answer.READ, news=True), Copied(Answer.READ)


class How(TypedDict):
    """How a run is followed."""

    closely: bool
    followed: bool
    update_pause: float | None


CLOSELY: How = {"closely": True, "followed": True, "update_pause": None}
POLLED: How = {"closely": True, "followed": False, "update_pause": None}
SWEPT: How = {"closely": False, "followed": False, "update_pause": None}


def after(*reads: Copied, how: How, interval: float = FASTEST) -> Wait:
    pace, wait = Pace(FASTEST, SLOWEST, interval), Wait(0, news=True)
    for copied in reads:
        pace, wait = pace.after(copied, **how)
    return wait


@pytest.mark.parametrize(
    ("reads", "how", "wait"),
    [
        pytest.param([NEWS], CLOSELY, Wait(120, news=True), id="a followed history is relied on"),
        pytest.param([SILENCE] * 100, CLOSELY, Wait(120, news=True), id="in silence, too"),
        pytest.param([NEWS], POLLED, Wait(FASTEST, news=True), id="without it, a busy stream is polled"),
        pytest.param([SILENCE] * 100, POLLED, Wait(SLOWEST, news=True), id="and a silent one ever less"),
        pytest.param([SILENCE] * 100, SWEPT, Wait(300, news=True), id="a swept one least of all"),
        pytest.param([Copied(Answer.NOBODY)], POLLED, Wait(0.1, news=True), id="without an answer it is slower"),
        pytest.param([Copied(Answer.NOBODY)] * 20, POLLED, Wait(SLOWEST, news=True), id="up to the slowest pace"),
        pytest.param([Copied(Answer.ENCODED)], POLLED, Wait(0.1, news=True), id="also if the answer is encoded"),
        pytest.param([Copied(Answer.NO_STREAM)], CLOSELY, Wait(2, news=False), id="news mean nothing without a stream"),
        pytest.param(
            [Copied(Answer.NO_STREAM)] * 20, CLOSELY, Wait(300, news=False), id="which is asked for ever less"
        ),
        pytest.param([Copied(Answer.NEVER_BEGAN)], CLOSELY, Wait(2, news=False), id="nor if no code has run"),
        pytest.param(
            [NEWS], {**CLOSELY, "update_pause": 7.0}, Wait(7, news=False), id="updates have a pace of their own"
        ),
    ],
)
def test_the_next_read(reads: list[Copied], how: How, wait: Wait) -> None:
    assert after(*reads, how=how) == wait


def test_news_make_a_slow_pace_faster() -> None:
    assert after(NEWS, how=POLLED, interval=10.0) == Wait(5.0, news=True)
