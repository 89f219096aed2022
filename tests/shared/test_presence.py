"""Who is connected is known at every gateway, and a gateway that vanishes takes its devices with it."""

from __future__ import annotations

import asyncio
import json
from time import monotonic
from typing import Any

from tests.shared.conftest import Gateway, Start
from tests.support import Served, Stream

PATH = "/v1/sessions/s"


PROMISED = 2.0
"""The seconds after which a device that joins or leaves is seen at another gateway."""

ROUNDS = 5
"""A busy machine is late now and then: once in so many rounds it must be in time."""

SLACK = 30.0
"""Seconds that a busy machine may take longer, where there is only one round."""


async def presence(stream: Stream) -> tuple[str, str]:
    """The next device that joins or leaves."""
    async with asyncio.timeout(60):
        return await _presence(stream)


async def _presence(stream: Stream) -> tuple[str, str]:
    while True:
        fields = dict(line.decode().split(": ", 1) for line in await stream.lines() if not line.startswith(b":"))
        if fields.get("event") == "presence":
            change = json.loads(fields["data"])
            return change["event"], change["device"]


async def connected(served: Served) -> dict[str, bool]:
    _, answer = await served.call("GET", f"{PATH}/devices")
    return {device["device"]: device["connected"] for device in answer["devices"]}


async def pair(start: Start, **changed: Any) -> tuple[Gateway, Gateway]:
    first, second = await start(**changed), await start(**changed)
    await first.publish("s", {"topic": "t", "data": 1})
    return first, second


async def test_a_device_that_joins_and_leaves_at_one_gateway_is_seen_soon_at_the_other(start: Start) -> None:
    first, second = await pair(start)
    watcher = await second.stream("s", "presence=true&from=now")
    joins, leaves = list[float](), list[float]()
    while not joins or (max(min(joins), min(leaves)) >= PROMISED and len(joins) < ROUNDS):
        began = monotonic()
        phone = await first.stream("s", "device=phone")
        assert await presence(watcher) == ("join", "phone")
        joins.append(monotonic() - began)
        assert await connected(second) == {"phone": True}
        _, page = await second.call("GET", f"{PATH}/events?from=beginning")
        _, device = await second.call("PUT", f"{PATH}/devices/phone", json={"seen": page["cursor"]})
        assert device["connected"]
        began = monotonic()
        phone.close()
        assert await presence(watcher) == ("leave", "phone")
        leaves.append(monotonic() - began)
        assert await connected(second) == {"phone": False}
    assert max(min(joins), min(leaves)) < PROMISED, (joins, leaves)


async def test_a_watcher_begins_with_the_devices_at_both_gateways(start: Start) -> None:
    first, second = await pair(start)
    phones = [await served.stream("s", f"device={name}") for served, name in ((first, "one"), (second, "two"))]
    watcher = await first.stream("s", "presence=true&from=now")
    assert {await presence(watcher), await presence(watcher)} == {("join", "one"), ("join", "two")}
    for phone in phones:
        phone.close()


async def test_the_devices_of_a_gateway_that_vanishes_leave_within_its_lease(start: Start) -> None:
    lease = 1.0
    first, second = await pair(start, lease=lease)
    watcher = await second.stream("s", "presence=true&from=now")
    await first.stream("s", "device=phone")
    assert await presence(watcher) == ("join", "phone")
    began = monotonic()
    first.engine.cut = True
    assert await presence(watcher) == ("leave", "phone")
    assert monotonic() - began < lease + SLACK
