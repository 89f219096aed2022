"""What fails for a while is logged: not at once, not always, and when it is over."""

from __future__ import annotations

import logging

import pytest

from tests.clocks import Clock
from wakeline import outages
from wakeline.outages import Outage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    return clock


def test_an_outage_is_logged_ever_more_seldom_and_its_end_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage(logging.getLogger("test"), "the gateway")
    told: list[int] = []
    for second in range(3600):
        outage.failed("refused")
        if len(caplog.messages) > len(told):
            told.append(second)
        clock.now += 1
    assert told[:4] == [3, 33, 93, 213]
    assert len(told) < 12
    assert caplog.messages[0] == "the gateway has failed for 3 s and is retried: refused"
    caplog.clear()
    outage.over()
    outage.over()
    assert caplog.messages == ["the gateway works again after 3600 s"]


def test_an_outage_of_a_few_seconds_is_not_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage(logging.getLogger("test"), "the gateway")
    for _ in range(10):
        outage.failed("restarting")
        clock.now += 2
        outage.over()
    assert caplog.messages == []


def test_a_first_call_that_took_long_counts_from_its_beginning(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(logging.getLogger("test"), "the gateway")
    outage.failed("no answer", clock.now - 10)
    assert caplog.messages == ["the gateway has failed for 10 s and is retried: no answer"]


def test_an_outage_that_will_last_is_logged_at_once_and_has_a_duration(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(logging.getLogger("test"), "the workflow")
    assert outage.seconds == 0
    outage.failed("no updates left", at_once=True)
    clock.now += 2
    outage.failed("no updates left", at_once=True)
    assert caplog.messages == ["the workflow has failed for 0 s and is retried: no updates left"]
    assert outage.seconds == 2
    outage.over()
    assert outage.seconds == 0
