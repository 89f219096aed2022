"""All gateways on one store restart one after the other, under load: no event is lost or repeated, and how long it takes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.balancer import balancer
from tests.gateways import GatewayProcess
from tests.nats import NatsStore
from tests.postgres import PostgresServer
from tests.soak import SOAK, times
from wakeline.background import cancel_all
from wakeline.client import SessionClient
from wakeline.publisher import SessionPublisher

GATEWAYS = 2 if SOAK == 1 else 3
ROUNDS = times(1, 1)
LEAVE_SECONDS = 1.5 if SOAK == 1 else 3.0
SESSIONS = ["one", "two"]
PACE = 0.01


@pytest.fixture(params=["postgres"] if SOAK == 1 else ["postgres", "nats"])
async def gateways(request: pytest.FixtureRequest, tmp_path: Path, forks: None) -> AsyncIterator[list[GatewayProcess]]:
    server: PostgresServer | NatsStore = request.getfixturevalue(request.param)
    environment = {
        "WAKELINE_ENGINE": server.address() if isinstance(server, NatsStore) else await server.database(),
        "WAKELINE_LEAVE_WITHIN": str(LEAVE_SECONDS),
        "WAKELINE_LEASE": "2",
    }
    started = [GatewayProcess(tmp_path / str(number), environment=environment) for number in range(GATEWAYS)]
    await asyncio.gather(*(gateway.start() for gateway in started))
    yield started
    for gateway in started:
        assert await gateway.stop() == 0


class Traffic:
    """Publishers and devices behind a load balancer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stopping = False
        self.published: dict[str, int] = {}
        self.delays: list[float] = []
        self.seen: list[tuple[str, list[dict[str, Any]]]] = []
        self.closes: list[int | None] = []

    async def publish(self, session: str) -> None:
        """Publish numbers until the restarts are over, each with the time."""
        number = 0
        async with SessionPublisher(session=session, url=self.url, publisher="p") as publishing:
            topic = publishing.topic("t")
            while not self.stopping:
                await topic.publish({"n": number, "at": time.time()})
                number += 1
                await asyncio.sleep(PACE)
            await publishing.flush()
        self.published[session] = number

    def _watch(self, session: str) -> list[dict[str, Any]]:
        self.seen.append((session, []))
        return self.seen[-1][1]

    def _received(self, seen: list[dict[str, Any]], event: dict[str, Any]) -> None:
        self.delays.append(time.time() - event["data"]["at"])
        seen.append(event)

    async def stream(self, client: SessionClient, session: str) -> None:
        """Watch as server-sent events."""
        seen = self._watch(session)
        async for event in client.session(session).events(wait_for_start=True):
            self._received(seen, {"offset": event.offset, "data": event.data})

    async def feed(self, session: str) -> None:
        """Watch over the feed's WebSocket, which reconnects when the gateway closes it."""
        seen, cursor = self._watch(session), "beginning"
        async with aiohttp.ClientSession() as http:
            while True:
                async with http.ws_connect(f"{self.url}/v1/feed") as socket:
                    ask = {"type": "subscribe", "session": session, "from": cursor, "wait_for_start": True}
                    await socket.send_str(json.dumps(ask))
                    async for message in socket:
                        frame = json.loads(message.data)
                        if frame["type"] == "events":
                            for event in frame["events"]:
                                self._received(seen, event)
                            cursor = frame["cursor"]
                    self.closes.append(socket.close_code)
                await asyncio.sleep(0.05)

    async def until_seen(self, devices: list[asyncio.Task[None]]) -> None:
        """Return when every device has everything, and fail as the first device that ends."""
        async with asyncio.timeout(60):
            while any(len(seen) < self.published[session] for session, seen in self.seen):
                for device in devices:
                    assert not device.done(), device.result()
                await asyncio.sleep(0.02)


async def log_of(client: SessionClient, session: str) -> list[int]:
    """The numbers that the store has."""
    numbers: list[int] = []
    page = await client.session(session).page()
    while True:
        numbers += [event.data["n"] for event in page.events]
        if page.up_to_date:
            return numbers
        page = await client.session(session).page(from_=page.cursor)


@pytest.mark.timeout(480 + 30 * GATEWAYS * ROUNDS)
async def test_a_rolling_restart_loses_and_repeats_nothing(gateways: list[GatewayProcess]) -> None:
    async with AsyncExitStack() as stack:
        before = await stack.enter_async_context(balancer([gateway.port for gateway in gateways]))
        client = await stack.enter_async_context(SessionClient(before.url, retry_timeout=timedelta(minutes=1)))
        traffic = Traffic(before.url)
        publishing = [asyncio.ensure_future(traffic.publish(session)) for session in SESSIONS]
        devices = [
            asyncio.ensure_future(watching)
            for session in SESSIONS
            for watching in (*(traffic.stream(client, session) for _ in range(5)), traffic.feed(session))
        ]
        stack.push_async_callback(cancel_all, *publishing, *devices)
        for _ in range(ROUNDS):
            for gateway in gateways:
                await asyncio.sleep(3 * PACE)
                assert await gateway.stop() == 0
                await gateway.start()
                await before.until_all_ready()
        traffic.stopping = True
        await asyncio.gather(*publishing)
        await traffic.until_seen(devices)
        logs = {session: await log_of(client, session) for session in SESSIONS}
    for session, seen in traffic.seen:
        count = traffic.published[session]
        assert [(event["offset"], event["data"]["n"]) for event in seen] == [(n, n) for n in range(count)]
        assert logs[session] == list(range(count))
    assert set(traffic.closes) <= {1012}
    delays = sorted(traffic.delays)
    report = {"gateways": GATEWAYS, "restarts": GATEWAYS * ROUNDS, "deliveries": len(delays)}
    report |= {f"p{part}_ms": round(1000 * delays[len(delays) * part // 100]) for part in (50, 99)}
    print(json.dumps({**report, "longest_ms": round(1000 * delays[-1]), "lost": 0, "repeated": 0}))
