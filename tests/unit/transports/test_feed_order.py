"""Many sessions, many clients that subscribe, leave, are cut and come back: each session's events once, in its order."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from tests.soak import dice, times
from tests.support import Served
from tests.unit.conftest import on_disk

SESSIONS = [f"session-{n}" for n in range(12)]
TURNS = times(60, 400)


class Reader:
    """Holds what the protocol tells a client to hold, and checks that nothing is missing or comes twice."""

    def __init__(self, served: Served, random_: random.Random) -> None:
        self.served = served
        self.random = random_
        self.offsets = dict.fromkeys(SESSIONS, 0)
        self.cursors = dict.fromkeys(SESSIONS, "beginning")
        self.finishing = False
        self.connections = 0

    def take(self, session: str, event: dict[str, Any]) -> None:
        assert event["offset"] == self.offsets[session], f"{session}: expected {self.offsets[session]}, got {event}"
        self.offsets[session] += 1

    def done(self, counts: dict[str, int]) -> bool:
        return self.offsets == counts


class WebSocketReader(Reader):
    async def read(self) -> None:
        """One connection, until it is cut: subscribes and leaves by chance."""
        self.connections += 1
        held: set[str] = set()
        leaving: set[str] = set()
        async with self.served.http.ws_connect("/v1/feed") as socket:
            if self.finishing:
                held.update(SESSIONS)
                for session in SESSIONS:
                    await socket.send_json({"type": "subscribe", "session": session, "from": self.cursors[session]})
            while True:
                if not self.finishing and self.random.random() < 0.3:
                    session = self.random.choice(SESSIONS)
                    if session in held and session not in leaving:
                        leaving.add(session)
                        await socket.send_json({"type": "unsubscribe", "session": session})
                    elif session not in held:
                        held.add(session)
                        await socket.send_json({"type": "subscribe", "session": session, "from": self.cursors[session]})
                message = await socket.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                frame = json.loads(message.data)
                session = frame.get("session", "")
                match frame["type"]:
                    case "subscribed":
                        assert frame["cursor"].endswith(f"-{self.offsets[session]}")
                        self.cursors[session] = frame["cursor"]
                    case "events":
                        assert session in held, f"{session} came after it was left"
                        for event in frame["events"]:
                            self.take(session, event)
                        self.cursors[session] = frame["cursor"]
                    case "unsubscribed":
                        held.discard(session)
                        leaving.discard(session)
                        if "cursor" in frame:
                            assert frame["cursor"].endswith(f"-{self.offsets[session]}")
                    case kind:
                        assert kind == "ready", frame


class SseReader(Reader):
    last_id = ""

    async def read(self) -> None:
        """One answer, until it is cut; the browser's half of the work and no more."""
        self.connections += 1
        query = "&".join(f"session={name}" for name in SESSIONS)
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        async with self.served.http.get(f"/v1/feed?{query}", headers=headers) as answer:
            identity = self.last_id
            async for line in answer.content:
                if line.startswith(b"id: "):
                    identity = line[4:-1].decode()
                elif line.startswith(b"data: "):
                    told = json.loads(line[6:])
                    self.take(told["session"], told["event"])
                elif line == b"\n":
                    self.last_id = identity


async def read_with_cuts(reader: WebSocketReader | SseReader, stopping: asyncio.Event, counts: dict[str, int]) -> None:
    while not (stopping.is_set() and reader.done(counts)):
        reader.finishing = stopping.is_set()
        patience = 2.0 if stopping.is_set() else reader.random.choice((0.01, 0.05, 0.3))
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(patience):
                await reader.read()


@on_disk
@pytest.mark.parametrize("kind", [WebSocketReader, SseReader])
async def test_every_session_comes_once_and_in_order(served: Served, kind: type[WebSocketReader | SseReader]) -> None:
    random_ = dice(0)
    counts = dict.fromkeys(SESSIONS, 0)
    stopping = asyncio.Event()

    async def publish() -> None:
        for _ in range(TURNS):
            session = random_.choice(SESSIONS)
            size = random_.choice((1, 1, 3, 40))
            await served.publish(session, *({"topic": "t", "data": n} for n in range(size)))
            counts[session] += size
            await asyncio.sleep(random_.choice((0, 0, 0.002)))

    for session in SESSIONS:
        await served.publish(session, {"topic": "t", "data": "first"})
        counts[session] += 1
    readers = [kind(served, dice(n)) for n in range(1, 6)]
    reading = [asyncio.ensure_future(read_with_cuts(reader, stopping, counts)) for reader in readers]
    await asyncio.gather(*(publish() for _ in range(3)))
    stopping.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*reading)
    assert all(reader.offsets == counts for reader in readers)
    print(sum(reader.connections for reader in readers), "connections,", sum(counts.values()), "events")


@on_disk
async def test_a_session_is_the_same_bytes_over_every_transport(served: Served) -> None:
    values = [{"text": "é日本\u2028"}, 2.50, "\ud83d\ude00", [1, None], {"a": {"b": "c\nd"}}, 10**30, ""]
    for value in values:
        await served.publish("s", {"topic": "t", "data": value})
    path = "/v1/sessions/s/events"
    async with served.http.get(path) as answer:
        page = await answer.read()
    inner = page[page.index(b"[") + 1 : page.rindex(b'],"from"')]
    async with served.http.get(path, headers={"Accept": "text/event-stream"}) as answer:
        single = await _datas(answer, len(values))
    async with served.http.get("/v1/feed?session=s") as answer:
        prefix, feed = b'{"session":"s","event":', await _datas(answer, len(values))
    assert all(data.startswith(prefix) and data.endswith(b"}") for data in feed)
    async with served.http.ws_connect("/v1/feed") as socket:
        await socket.send_json({"type": "subscribe", "session": "s"})
        frames = [await socket.receive_str() for _ in range(3)]
    events = frames[2].encode()
    assert inner == b",".join(single)
    assert single == [data[len(prefix) : -1] for data in feed]
    assert events[events.index(b"[") + 1 : events.rindex(b"]")] == inner


async def _datas(answer: aiohttp.ClientResponse, count: int) -> list[bytes]:
    found: list[bytes] = []
    async for line in answer.content:
        if line.startswith(b"data: "):
            found.append(line[6:-1])
            if len(found) == count:
                break
    return found
