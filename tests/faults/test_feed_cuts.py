"""Feeds that are cut at any byte, over and over, while their gateway is killed: every event exactly once."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.connecting import connecting
from tests.contract.transports import CutError, Wire, masked
from tests.feeds import PING, PONG, handshake
from tests.feeds import frame as frame_of
from tests.gateways import GatewayProcess
from tests.soak import SOAK, dice, times
from tests.support import Served
from wakeline.background import cancel_all

SESSIONS = [f"order-{n}" for n in range(5)]
CUTS = times(20, 100)
KILLS = 4 if SOAK > 1 else 2


class Reader:
    """Five sessions, each with the cursor that the protocol tells a client to hold."""

    def __init__(self) -> None:
        self.cursors = dict.fromkeys(SESSIONS, "beginning")
        self.events: dict[str, list[int]] = {name: [] for name in SESSIONS}
        self.last_id = ""
        self.cuts = 0

    async def websocket(self, wire: Wire) -> None:
        wire.send(handshake("127.0.0.1"))
        await wire.head(101)
        for session, cursor in self.cursors.items():
            wire.send(masked(json.dumps({"type": "subscribe", "session": session, "from": cursor}).encode()))
        while True:
            first, size = await wire.exactly(2)
            length = size if size < 126 else int.from_bytes(await wire.exactly(2 if size == 126 else 8))
            payload = await wire.exactly(length)
            if first & 0x0F == PING:
                wire.send(frame_of(payload, PONG))
                continue
            frame = json.loads(payload)
            if frame["type"] == "events":
                self.events[frame["session"]] += [event["offset"] for event in frame["events"]]
            if "cursor" in frame:
                self.cursors[frame["session"]] = frame["cursor"]
            assert frame["type"] in ("ready", "subscribed", "events"), frame

    async def sse(self, wire: Wire) -> None:
        query = "&".join(f"session={name}" for name in SESSIONS)
        last = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        wire.send(f"GET /v1/feed?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{last}\r\n".encode())
        await wire.head()
        async for fields in wire.frames():
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                told = json.loads(fields["data"])
                self.events[told["session"]].append(told["event"]["offset"])


async def read_with_cuts(port: int, reader: Reader, form: str, chance: random.Random, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        budget = chance.choice((chance.randint(0, 600), chance.randint(0, 3_000), chance.randint(0, 20_000)))
        with suppress(CutError, TimeoutError, ConnectionError):
            async with connecting("127.0.0.1", port) as ends:
                try:
                    async with asyncio.timeout(chance.choice((0.01, 0.03, 0.2))):
                        await getattr(reader, form)(Wire(*ends, budget))
                finally:
                    reader.cuts += 1


async def publish_all(url: str, session: str, stopping: asyncio.Event) -> int:
    """Publish until it is enough, exactly once whatever happens to the gateway; gives the number of events."""
    count = 0
    async with aiohttp.ClientSession() as http:
        while True:
            headers = {"Wakeline-Publisher": f"publisher of {session}", "Wakeline-Sequence": str(count)}
            body = {"events": [{"topic": "t", "data": count}]}
            with suppress(aiohttp.ClientError, TimeoutError):
                async with http.post(f"{url}/v1/sessions/{session}/events", json=body, headers=headers) as answer:
                    count += answer.status == 200
                    if stopping.is_set() and answer.status == 200:  # one without an answer may be in the log
                        return count
                    await asyncio.sleep(0.005)
                    continue
            await asyncio.sleep(0.02)


@pytest.mark.timeout(max(480, 200 * CUTS // 500))
@pytest.mark.parametrize("form", ["websocket", "sse"])
async def test_every_event_once_through_cuts_and_kills(tmp_path: Path, form: str) -> None:
    chance = dice(0)
    gateway = GatewayProcess(tmp_path / "data", environment={"WAKELINE_DURABILITY": "process"})
    await gateway.start()
    enough, stopping = asyncio.Event(), asyncio.Event()
    publishing: list[asyncio.Future[int]] = []
    reading: list[asyncio.Future[None]] = []
    try:
        async with Served(gateway.url) as served:
            for name in SESSIONS:
                await served.call("PUT", f"/v1/sessions/{name}", json={})
        publishing += [asyncio.ensure_future(publish_all(gateway.url, name, enough)) for name in SESSIONS]
        readers = [Reader() for _ in range(8)]
        reading += [
            asyncio.ensure_future(read_with_cuts(gateway.port, reader, form, dice(1 + n), stopping))
            for n, reader in enumerate(readers)
        ]
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            await gateway.kill()
            await gateway.start()
        while sum(reader.cuts for reader in readers) < CUTS:
            assert not any(task.done() for task in reading), reading
            await asyncio.sleep(0.1)
        enough.set()
        counts = await asyncio.gather(*publishing)
        stopping.set()
        await asyncio.gather(*reading)
        for reader in readers:
            await read_to_end(gateway.port, reader, form, counts)
        for reader in readers:
            assert reader.events == {name: list(range(n)) for name, n in zip(SESSIONS, counts, strict=True)}
        print(f"{sum(reader.cuts for reader in readers)} connections cut, {sum(counts)} events")
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.log.read_text()
    finally:
        await cancel_all(*publishing, *reading)
        await gateway.kill()


async def read_to_end(port: int, reader: Reader, form: str, counts: list[int]) -> None:
    async with connecting("127.0.0.1", port) as ends:
        task = asyncio.ensure_future(getattr(reader, form)(Wire(*ends, 1 << 40)))
        try:
            async with asyncio.timeout(60):
                while [len(events) for events in reader.events.values()] != counts and not task.done():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"expected {counts} events, got {reader.events} from {reader.cursors}")
        finally:
            await cancel_all(task)


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
async def test_vanishing_feeds_leave_nothing_behind(tmp_path: Path, event_loop: str) -> None:
    """Clients that are cut in the middle of a fan-out; the steady one gets everything."""
    gateway = GatewayProcess(tmp_path / "data", environment={"WAKELINE_EVENT_LOOP": event_loop})
    await gateway.start()
    stopping = asyncio.Event()
    try:
        async with Served(gateway.url) as served:
            for name in SESSIONS:
                await served.publish(name, {"topic": "t", "data": "first"})
            async with connecting("127.0.0.1", gateway.port) as ends:
                steady = Reader()
                task = asyncio.ensure_future(steady.websocket(Wire(*ends, 1 << 40)))
                vanishing = [
                    asyncio.ensure_future(read_with_cuts(gateway.port, Reader(), form, random.Random(n), stopping))
                    for n, form in enumerate(("websocket", "sse") * 5)
                ]
                for n in range(50):
                    for name in SESSIONS:
                        await served.publish(name, {"topic": "t", "data": n})
                async with asyncio.timeout(60):
                    while any(events != list(range(51)) for events in steady.events.values()):
                        assert not task.done(), task
                        await asyncio.sleep(0.05)
                stopping.set()
                await asyncio.gather(*vanishing)
                task.cancel()
            async with asyncio.timeout(60):
                while any([(await served.call("GET", f"/v1/sessions/{n}"))[1]["devices"] for n in SESSIONS]):
                    await asyncio.sleep(0.05)
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.log.read_text()
    finally:
        stopping.set()
        await gateway.kill()
