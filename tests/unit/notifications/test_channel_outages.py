"""A channel that fails is logged with its reason, and so is its recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.clocks import Clock
from tests.receivers import SECRET, Receiver, status
from tests.unit.conftest import Serve
from wakeline import outages
from wakeline.gateway.notifications.channel_outages import ChannelOutages
from wakeline.gateway.notifications.channels.channel import Outcome
from wakeline.gateway.rules import Notify

FAIL = "notifications through a channel fail"
WORK = "notifications through a channel succeed again"
ALERT = {"topic": "alert", "data": 1}
RULES = {"alerts": Notify(topics=("alert",), users=("ada",), grace=0)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    return clock


async def until(found: Callable[[], list[Any]]) -> list[Any]:
    async with asyncio.timeout(60):
        while not (lines := found()):
            await asyncio.sleep(0.02)
    return lines


async def test_a_receiver_that_fails_is_logged_at_once_and_again_when_it_accepts(serve: Serve, hook: Receiver) -> None:
    hook.answers.append(status(503))
    with capture_logs() as logged:
        served = await serve(notify=RULES, channels={"ops": hook.channel()}, outgoing_networks=("127.0.0.0/8",))
        await served.publish("s", ALERT)
        (line,) = await until(lambda: [line for line in logged if line["event"] == FAIL])
        assert (line["log_level"], line["channel"], line["error"]) == ("warning", "ops", "503")
        await served.publish("t", ALERT)
        (line,) = await until(lambda: [line for line in logged if line["event"] == WORK])
        assert (line["log_level"], line["channel"]) == ("info", "ops")


async def test_a_receiver_at_a_private_address_is_logged_with_the_setting_that_allows_it(serve: Serve) -> None:
    channel = {"url": "http://127.0.0.1:9/hook", "secrets": [SECRET]}
    with capture_logs() as logged:
        served = await serve(notify=RULES, channels={"ops": channel})
        await served.publish("s", ALERT)
        (line,) = await until(lambda: [line for line in logged if line["event"] == FAIL])
    assert line["error"] == "127.0.0.1 is a private address; outgoing_networks can allow it"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hook", "http://localhost:9", "http://[::1]:9", "https://10.1.2.3"])
async def test_a_channel_with_a_private_address_is_warned_about_at_start(serve: Serve, url: str) -> None:
    with capture_logs() as logged:
        await serve(channels={"ops": {"url": url, "secrets": [SECRET]}})
    (line,) = [line for line in logged if "channels.ops" in line["event"]]
    assert line["log_level"] == "warning"
    assert "outgoing_networks can allow" in line["event"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/hook", "http://localhost:9", "https://ops.example", "https://9.9.9.9"]
)
async def test_no_warning_about_a_channel_whose_address_may_be_reached(serve: Serve, url: str) -> None:
    with capture_logs() as logged:
        await serve(channels={"ops": {"url": url, "secrets": [SECRET]}}, outgoing_networks=("127.0.0.0/8",))
    assert [line for line in logged if "channels.ops" in line["event"]] == []


def test_one_push_subscription_that_fails_among_others_is_not_logged(clock: Clock) -> None:
    channels = ChannelOutages({"phones"})
    with capture_logs() as logged:
        for _ in range(10):
            channels.note("phones", Outcome("failed", "phone: 403"))
            channels.note("phones", Outcome("delivered", "laptop: 201"))
            clock.now += 60
    assert logged == []


def test_a_push_service_that_keeps_failing_is_logged_and_its_recovery(clock: Clock) -> None:
    channels = ChannelOutages({"phones"})
    with capture_logs() as logged:
        channels.note("phones", Outcome("failed", "phone: 503"))
        clock.now += 5
        channels.note("phones", Outcome("failed", "phone: 503"))
        channels.note("phones", Outcome("delivered", "phone: 201"))
    assert [(line["event"], line["channel"]) for line in logged] == [(FAIL, "phones"), (WORK, "phones")]


def test_a_receiver_that_fails_now_and_then_does_not_fill_the_log(clock: Clock) -> None:
    channels = ChannelOutages(())
    with capture_logs() as logged:
        for _ in range(10):
            channels.note("ops", Outcome("failed", "500"))
            channels.note("ops", Outcome("delivered", "200"))
            clock.now += 60
    assert [line["event"] for line in logged] == [FAIL, WORK]


def test_a_message_that_the_gateway_or_the_receiver_ends_is_no_failure_of_the_channel(clock: Clock) -> None:
    channels = ChannelOutages(())
    with capture_logs() as logged:
        channels.note("ops", Outcome("refused", "400, abort-message"))
        channels.note("ops", Outcome("unneeded", "the user has no push subscription"))
    assert logged == []
