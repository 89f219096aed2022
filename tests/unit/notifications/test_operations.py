"""A channel that is disabled says so in the session of the settings, and people are notified through another channel."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.receivers import Receiver, receiver, status
from tests.support import Served, close, data_of, everything
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.notifications.health import DISABLED_AFTER, Health
from wakeline.gateway.notifications.operations import Operations
from wakeline.gateway.rules import Notify

TWO_GATEWAYS = True
BEGAN = 1_700_000_000.0
ALERT = {"topic": "alert", "data": 1}


def health(engine: MemoryEngine, session: str | None = "ops", url: str = "https://hook.example") -> Health:
    return Health(engine, {"hook": url}, lambda channel, disabled: None, Operations(engine, session))


async def reports(engine: MemoryEngine) -> list[tuple[str, Any]]:
    return [(event.topic, data_of(event)) for event in await everything(engine, "ops")]


async def until(served: Served, topic: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            _, page = await served.call("GET", f"/v1/sessions/ops/events?topics={topic}")
            if page.get("events"):
                found: dict[str, Any] = page["events"][0]["data"]
                return found
            await asyncio.sleep(0.02)


async def test_people_are_notified_of_a_channel_that_is_disabled(serve: Serve, hook: Receiver) -> None:
    hook.answers.append(status(410))
    rules = {
        "alerts": Notify(topics=("alert",), users=("ada",), grace=0, channels=("hook",)),
        "channels": Notify(topics=("$channel.disabled",), users=("on-call",), grace=0, channels=("pager",)),
    }
    async with receiver() as pager:
        served = await serve(
            notify=rules,
            channels={"hook": hook.channel(), "pager": pager.channel()},
            outgoing_networks=("127.0.0.1",),
            operations="ops",
        )
        await served.publish("s", ALERT)
        request = (await pager.until(1))[0]
        assert (request.data["user"], request.data["session"]) == ("on-call", "ops")
        data = request.data["events"][0]["data"]
        assert (data["channel"], data["reason"]) == ("hook", "410")
        assert await until(served, "$channel.disabled") == data
        await served.call("POST", "/v1/notifications/retry?channel=hook")
        assert await until(served, "$channel.enabled") == {"channel": "hook"}
        assert len(pager.received) == 1


async def test_five_days_of_failures_are_reported_once_whichever_gateways_notice_them() -> None:
    engine = MemoryEngine()
    one, other = health(engine), health(engine)
    await one.failed("hook", BEGAN, "500")
    assert await engine.state("ops") is None
    later = BEGAN + DISABLED_AFTER
    await asyncio.gather(one.failed("hook", later, "502"), other.failed("hook", later, "503"))
    await one.failed("hook", later + 1, "504")
    ((topic, data),) = await reports(engine)
    assert (topic, data["channel"], data["failing_since"]) == ("$channel.disabled", "hook", "2023-11-14T22:13:20.000Z")
    assert data["reason"] in ("502", "503")
    await one.succeeded("hook")
    await other.load()
    await other.succeeded("hook")
    assert [topic for topic, _ in await reports(engine)] == ["$channel.disabled", "$channel.enabled"]


async def test_a_channel_that_fails_a_second_time_is_reported_a_second_time() -> None:
    engine = MemoryEngine()
    one = health(engine)
    for began in (BEGAN, BEGAN + 10 * DISABLED_AFTER):
        await one.failed("hook", began)
        await one.failed("hook", began + DISABLED_AFTER)
        await one.succeeded("hook")
    assert [topic for topic, _ in await reports(engine)] == ["$channel.disabled", "$channel.enabled"] * 2


async def test_a_closed_session_does_not_prevent_that_a_channel_is_disabled() -> None:
    engine = MemoryEngine()
    await close(engine, "ops")
    one = health(engine)
    await one.failed("hook", BEGAN, gone=True)
    assert await one.is_disabled("hook")


async def test_without_the_setting_nothing_is_appended() -> None:
    engine = MemoryEngine()
    await health(engine, None).failed("hook", BEGAN, gone=True)
    assert await engine.sessions() == []


async def test_a_name_that_no_session_can_have_is_refused_at_start(serve: Serve) -> None:
    with pytest.raises(SettingsInvalidError, match="operations"):
        await serve(operations="a\nb")


async def test_a_changed_receiver_enables_a_disabled_channel_and_is_reported_once() -> None:
    engine = MemoryEngine()
    await health(engine).failed("hook", BEGAN, gone=True)
    changed = [health(engine, url="https://other.example") for _ in range(2)]
    await asyncio.gather(*(one.load() for one in changed))
    await health(engine, url="https://other.example").load()
    assert not await changed[0].is_disabled("hook")
    assert [topic for topic, _ in await reports(engine)] == ["$channel.disabled", "$channel.enabled"]
    await changed[0].failed("hook", BEGAN + 1, gone=True)
    assert [topic for topic, _ in await reports(engine)][2:] == ["$channel.disabled"]


async def test_a_success_enables_a_channel_that_another_gateway_has_disabled() -> None:
    """Such as one retried by hand, which the owner of its session sends without a look at the channel."""
    engine = MemoryEngine()
    one, other = health(engine), health(engine)
    await one.load()
    await other.load()
    await one.failed("hook", BEGAN, "410", gone=True)
    await other.succeeded("hook")
    assert not await one.is_disabled("hook")
    assert [topic for topic, _ in await reports(engine)] == ["$channel.disabled", "$channel.enabled"]
