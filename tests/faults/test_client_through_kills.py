"""`SessionClient` while its gateway is killed: it yields every event once and in order."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.gateways import GatewayProcess
from tests.unit.client.test_client import take
from wakeline.client import SessionClient


@pytest.mark.parametrize("topics", [None, "t"])
async def test_every_event_through_kills_of_the_gateway(tmp_path: Path, topics: str | None) -> None:
    gateway = GatewayProcess(tmp_path / "data")
    await gateway.start()
    acknowledged = asyncio.Event()

    async def publish(client: SessionClient) -> None:
        for n in range(120):
            await client.session("s").publish("t", n, publisher="p", sequence=n)
            acknowledged.set()

    async def kill() -> None:
        for _ in range(2):
            await asyncio.sleep(0.1)
            await gateway.kill()
            await gateway.start()

    async with SessionClient(gateway.url, retry_timeout=timedelta(minutes=2)) as client:
        publishing = asyncio.ensure_future(publish(client))
        await acknowledged.wait()
        killing = asyncio.ensure_future(kill())
        async with client.session("s").events(topics=topics) as events:
            seen = await take(events, 120, seconds=110)
        await asyncio.gather(publishing, killing)
    await gateway.kill()
    assert [(event.offset, event.data) for event in seen] == [(n, n) for n in range(120)]
