"""SIGKILL at random moments: what was acknowledged as seen is never taken back, and positions never go backwards."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateways import GatewayProcess
from tests.soak import BETWEEN, times
from tests.support import Served

KILLS = times(3, 4)
EVENTS = 400
ROUNDS = 5
"""A busy machine is late now and then: once in so many rounds it must be in time."""

PATH = "/v1/sessions/s/devices"
GONE = (aiohttp.ClientError, TimeoutError)


class Readers:
    """Devices that acknowledge one event after the other, and keep what they were told."""

    def __init__(self, served: Served, epoch: str) -> None:
        self.served = served
        self.epoch = epoch
        self.told: dict[str, int] = defaultdict(int)
        self.stopping = False

    async def acknowledge(self, device: str, chance: random.Random) -> None:
        while not self.stopping:
            offset = chance.randint(self.told[device], min(EVENTS, self.told[device] + 3))
            body = {"seen": f"{self.epoch}-{offset}", "everywhere": chance.random() < 0.02}
            try:
                status, answer = await self.served.call("PUT", f"{PATH}/{device}", json=body)
            except GONE:
                await asyncio.sleep(0.2)  # not faster: who knocks all the time keeps it from starting
                continue
            assert status == 200, answer
            seen = offset_of(answer["seen"])
            assert seen >= max(offset, self.told[device]), "a position only grows"
            self.told[device] = max(self.told[device], seen)
            await asyncio.sleep(BETWEEN)


def offset_of(cursor: str | None) -> int:
    return int((cursor or "-0").rpartition("-")[2])


async def listed(served: Served) -> dict[str, Any]:
    status, answer = await served.call("GET", PATH)
    assert status == 200
    return {device["device"]: device for device in answer["devices"]}


@pytest.mark.timeout(480 + 10 * KILLS)
async def test_what_was_acknowledged_is_never_taken_back(kept_in: Mapping[str, str], tmp_path: Path) -> None:
    chance = random.Random(7)
    gateway = GatewayProcess(tmp_path / "data", environment=kept_in)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            answer = await served.publish("s", *({"topic": "t", "data": n} for n in range(EVENTS)))
            readers = Readers(served, answer["epoch"])
            names = [f"device-{n}" for n in range(12)]
            reading = [asyncio.ensure_future(readers.acknowledge(name, random.Random(name))) for name in names]
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0, 0.4))
                await gateway.kill()
                told = dict(readers.told)
                await gateway.start()
                known = await listed(served)
                for device, offset in told.items():
                    assert offset == 0 or offset_of(known[device]["seen"]) >= offset, "acknowledged, and gone"
            readers.stopping = True
            await asyncio.gather(*reading)
            assert sum(readers.told.values()) > len(names), "the load has done something"
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()


async def test_delivered_survives_a_stop_and_trails_a_kill_by_seconds(
    kept_in: Mapping[str, str], tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path / "data", environment=kept_in)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            answer = await served.publish("s", *({"topic": "t", "data": n} for n in range(10)))
            delivered, expected = None, f"{answer['epoch']}-10"
            for _ in range(ROUNDS):
                stream = await served.stream("s", "device=phone")
                await stream.take(10)
                await asyncio.sleep(3)  # half as long again as it may take until it is saved
                await gateway.kill()
                stream.close()
                await gateway.start()
                delivered = (await listed(served)).get("phone", {}).get("delivered")
                if delivered == expected:
                    break
            assert delivered == expected
            await served.publish("s", *({"topic": "t", "data": n} for n in range(10, 15)))
            stream = await served.stream("s", "device=phone&from=now")
            await served.publish("s", {"topic": "t", "data": 15})
            await stream.next()
            assert await gateway.stop() == 0
            stream.close()
            await gateway.start()
            assert (await listed(served))["phone"]["delivered"] == f"{answer['epoch']}-16"
    finally:
        await gateway.kill()
