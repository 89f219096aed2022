"""Gateways whose clocks differ give a reader the same place for a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.shared.conftest import Gateway, Start
from tests.sharing import Faults
from wakeline.events import timestamp
from wakeline.gateway.delivery import accept

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


async def test_reading_from_a_time_misses_nothing_although_clocks_are_an_hour_apart(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways = [await start(Faults()) for _ in range(2)]
    ahead = [timedelta(0), timedelta(hours=1)]
    now, clock = NOON, ahead[0]
    monkeypatch.setattr(accept, "timestamp", lambda: timestamp(now + clock))
    for number in range(120):
        now = NOON + timedelta(minutes=number)
        clock = ahead[number * number % 3 % 2]
        await gateways[ahead.index(clock)].publish("s", {"topic": "t", "data": number})
    everything = await read(gateways[0], "beginning")
    times = [datetime.fromisoformat(event["time"]) for event in everything]
    assert times != sorted(times)
    for minute in range(-1, 185, 3):
        moment = NOON + timedelta(minutes=minute, seconds=-30)
        first = next((at for at, time in enumerate(times) if time >= moment), len(times))
        for served in gateways:
            assert await read(served, f"time:{timestamp(moment)}") == everything[first:]


async def read(served: Gateway, start: str) -> list[dict[str, Any]]:
    status, page = await served.call("GET", f"/v1/sessions/s/events?limit=200&from={quote(start)}")
    assert status == 200, page
    events: list[dict[str, Any]] = page["events"]
    return events
