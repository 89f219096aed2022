"""SIGKILL while people answer: each request has one outcome, everybody sees the same one, and none comes after its expiry."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateways import GatewayProcess
from tests.soak import SEED, dice, times
from tests.support import Served
from wakeline.client import SessionClient
from wakeline.errors import AlreadyResolvedError

REQUESTS = times(60, 100)
KILLS = times(2, 8)
DEVICES = ("phone", "laptop", "watch")
GONE = (aiohttp.ClientError, TimeoutError)
PATIENT = timedelta(seconds=120)


class Seen:
    """The view of one device: the events, and what it learned by its answers."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str, Any]] = []
        self.outcomes: dict[str, Any] = {}


async def ask(served: Served, number: int) -> None:
    """Ask until it is acknowledged; every third request expires soon."""
    body: dict[str, Any] = {"id": f"r{number}", "reason": "approval", "choices": list(DEVICES)}
    body["expires_in"] = 0.1 if number % 3 == 0 else 600
    while True:
        try:
            status, told = await served.call("POST", "/v1/sessions/s/requests", json=body)
        except GONE:
            await asyncio.sleep(0.05)
            continue
        assert status == 200, told
        return


async def answer(client: SessionClient, seen: Seen, id: str, device: str, pause: float) -> None:
    await asyncio.sleep(pause)
    try:
        answered = await client.session("s").answer(id, device, device=device)
        outcome: Any = answered.outcome
        assert outcome is not None
        seen.outcomes[id] = {
            name: value
            for name in ("request", "status", "payload", "device")
            if (value := getattr(outcome, name)) is not None
        }
    except AlreadyResolvedError as error:
        seen.outcomes[id] = error.details["outcome"]


async def watch(url: str, device: str, seen: Seen, chance: random.Random) -> None:
    """Answer each request that comes, until all are closed."""
    closed = 0
    async with SessionClient(url, retry_timeout=PATIENT) as client, asyncio.TaskGroup() as group:
        stream = client.session("s").events(topics="$input.*", wait_for_start=True)
        async for event in stream:
            seen.events.append((event.offset, event.topic, event.data))
            if event.topic == "$input.requested":
                group.create_task(answer(client, seen, event.data["id"], device, chance.uniform(0, 0.3)))
            else:
                closed += 1
                if closed == REQUESTS:
                    return


@pytest.mark.timeout(480 + 20 * KILLS)
async def test_each_request_has_one_outcome_through_kills(kept_in: Mapping[str, str], tmp_path: Path) -> None:
    chance = dice(7)
    gateway = GatewayProcess(tmp_path / "data", environment=kept_in)
    await gateway.start()
    seen = {device: Seen() for device in DEVICES}
    try:
        async with SessionClient(gateway.url, retry_timeout=PATIENT) as client:
            async with asyncio.TaskGroup() as group:
                for device in DEVICES:
                    group.create_task(watch(gateway.url, device, seen[device], chance))
                asking = group.create_task(ask_all(gateway.url, chance))
                for _ in range(KILLS):
                    await asyncio.sleep(chance.uniform(0.2, 0.8))
                    await gateway.kill()
                    await gateway.start()
                await asking
            page = await client.session("s").page(topics="$input.*", limit=10_000)
            assert await client.session("s").requests() == []
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()
    told = [event.data for event in page.events if event.topic == "$input.resolved"]
    outcomes = {data["request"]: data for data in told}
    assert len(told) == len(outcomes) == REQUESTS
    for device in DEVICES:
        assert seen[device].outcomes == outcomes
        assert seen[device].events == [(event.offset, event.topic, event.data) for event in page.events]
    expires = {e.data["id"]: e.data["expires_at"] for e in page.events if e.topic == "$input.requested"}
    for event in page.events:
        if event.topic == "$input.resolved":
            before = event.time.isoformat(timespec="milliseconds") < expires[event.data["request"]].replace(
                "Z", "+00:00"
            )
            assert before == (event.data["status"] == "resolved")
    won = Counter(data.get("device", "expired") for data in told)
    print(f"seed {SEED}: {REQUESTS} requests, {KILLS} kills; {dict(won)}")
    assert set(won) == {*DEVICES, "expired"}, "each device was first at times, and time was"


async def ask_all(url: str, chance: random.Random) -> None:
    async with Served(url) as served:
        for number in range(REQUESTS):
            await ask(served, number)
            await asyncio.sleep(chance.uniform(0, 0.05))
