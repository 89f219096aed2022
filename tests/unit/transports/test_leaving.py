"""A gateway that stops sends its clients elsewhere: each ends in its own way, and has everything that came before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import aiohttp
import pytest

from tests.publishers import line
from tests.support import Served, Stream
from wakeline.gateway.app import Running, running
from wakeline.gateway.log import Append, Opened, Outcome, Page, Publication
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.settings import Settings

SECONDS = 0.5


@asynccontextmanager
async def started(
    engine: MemoryEngine | None = None, seconds: float = SECONDS
) -> AsyncIterator[tuple[Running, Served]]:
    settings = Settings(engine="memory", port=0, no_auth=True, leave_within=seconds)
    async with running(settings, engine=engine) as gateway, Served(gateway.url) as served:
        await served.publish("s", {"topic": "t", "data": 0})
        yield gateway, served


async def leave(gateway: Running) -> None:
    await gateway.leave(asyncio.Event().wait())


async def last(stream: Stream) -> bytes:
    """The last frame of a stream, which ends without an error."""
    frame: list[bytes] = []
    while lines := await stream.lines():
        frame = lines
    return b"\n".join(frame)


PATHS = {"events": "/v1/sessions/s/events", "feed": "/v1/feed?session=s", "durable": "/v1/stream/s?offset=now&live=sse"}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_a_stream_ends_whole_with_a_pause_before_the_client_reconnects(path: str) -> None:
    async with started() as (gateway, served):
        if "/v1/stream/" in path:
            await served.call("PUT", "/v1/stream/s", headers={"Content-Type": "application/json"})
        streams = [Stream(await served.http.get(path, headers={"Accept": "text/event-stream"})) for _ in range(20)]
        for stream in streams:
            await stream.lines()
        reading = [asyncio.ensure_future(last(stream)) for stream in streams]
        await leave(gateway)
        pauses = [int(frame.removeprefix(b"retry: ")) for frame in await asyncio.gather(*reading)]
    assert all(250 <= pause <= 1250 for pause in pauses)
    assert len(set(pauses)) > 5


async def test_streams_end_spread_over_the_time_and_later_ones_too() -> None:
    seconds = 8.0  # a busy machine may be late by two of them
    async with started(seconds=seconds) as (gateway, served):
        streams = [await served.stream("s") for _ in range(50)]
        leaving = asyncio.create_task(leave(gateway))
        began = monotonic()

        async def ended(stream: Stream) -> float:
            await stream.rest()
            return monotonic() - began

        await asyncio.sleep(0)
        ends = sorted(await asyncio.gather(*map(ended, [*streams, await served.stream("s")])))
        await leaving
    assert ends[10] < seconds / 2 < ends[-5]


async def test_the_gateway_is_unready_at_once_and_answers_meanwhile() -> None:
    async with started(seconds=3.0) as (gateway, served):
        leaving = asyncio.create_task(leave(gateway))
        await asyncio.sleep(0)
        status, answer = await served.call("GET", "/readyz")
        assert (status, answer["status"]) == (503, "stopping")
        assert (await served.publish("s", {"topic": "t", "data": 1}))["first_offset"] == 1
        async with served.http.get("/healthz") as healthy:
            assert (healthy.status, healthy.headers["Connection"]) == (200, "close")
        await leaving


async def test_a_long_poll_is_answered_without_events() -> None:
    async with started() as (gateway, served):
        _, page = await served.call("GET", "/v1/sessions/s/events")
        asked = f"/v1/sessions/s/events?wait=60&device=d&from={page['cursor']}"
        waiting = asyncio.ensure_future(served.call("GET", asked))
        async with asyncio.timeout(60):
            while not await served.metric("wakeline_devices_connected"):
                await asyncio.sleep(0.01)
        await leave(gateway)
        assert await waiting == (200, {**page, "events": [], "from": page["cursor"]})


ASKED = {"id": "r", "reason": "approval", "choices": ["approve", "reject"]}
WAITS = {"a reader": ("GET", "/r?wait=60", None), "the run that asks": ("POST", "", {**ASKED, "wait": 60})}


@pytest.mark.parametrize(("method", "path", "body"), WAITS.values(), ids=WAITS)
async def test_a_wait_for_the_outcome_of_a_request_ends_with_the_open_request(
    method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with started() as (gateway, served):
        asked = await served.call("POST", "/v1/sessions/s/requests", json=ASKED)
        began = monotonic()
        waiting = asyncio.ensure_future(served.call(method, f"/v1/sessions/s/requests{path}", json=body))
        async with asyncio.timeout(60):
            while await served.metric("wakeline_connections_open") < 2:
                await asyncio.sleep(0.01)
        await leave(gateway)
        assert await waiting == asked
        assert monotonic() - began < 60


class HeldEngine(MemoryEngine):
    """Appends when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()
        self.begun = asyncio.Event()

    def append_each(self, appends: Any) -> asyncio.Future[list[Outcome]]:
        return asyncio.ensure_future(self._later(appends))

    async def _later(self, appends: list[Append]) -> list[Outcome]:
        self.begun.set()
        await self.held.wait()
        return [await self.append(append) for append in appends]


async def test_appends_under_way_are_answered_before_the_websocket_closes() -> None:
    engine = HeldEngine()
    async with started(engine) as (gateway, served), line(served) as publisher:
        await publisher.open()
        await publisher.append(1)
        await engine.begun.wait()
        leaving = asyncio.create_task(leave(gateway))
        await asyncio.sleep(SECONDS)
        engine.held.set()
        assert (await publisher.next("appended"))["next_offset"] == 2
        assert await publisher.closed() == 1012
        await leaving


class SlowToOpen(HeldEngine):
    """Opens a publisher's attempt when it is let go, and appends a moment after that."""

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        self.begun.set()
        await self.held.wait()
        return await super().open_attempt(session, publication, epoch=epoch)

    async def _later(self, appends: list[Append]) -> list[Outcome]:
        await asyncio.sleep(0.1)
        return await super()._later(appends)


async def test_appends_that_wait_for_their_channel_are_answered_before_the_websocket_closes() -> None:
    engine = SlowToOpen()
    engine.held.set()
    async with started(engine) as (gateway, served), line(served) as publisher:
        engine.held.clear()
        engine.begun.clear()
        opens = {"type": "open", "channel": 1, "session": "s", "publisher": "p"}
        append = {"type": "append", "channel": 1, "sequence": 0, "events": [{"topic": "t", "data": 1}]}
        await publisher.send(opens, append)
        await engine.begun.wait()
        leaving = asyncio.create_task(leave(gateway))
        await asyncio.sleep(SECONDS)
        engine.held.set()
        await publisher.next("opened")
        assert (await publisher.next("appended"))["next_offset"] == 2
        assert await publisher.closed() == 1012
        await leaving


class SlowToRead(MemoryEngine):
    """Reads when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()
        self.held.set()
        self.begun = asyncio.Event()

    async def read(self, session: str, offset: int, **how: Any) -> Page:
        self.begun.set()
        await self.held.wait()
        return await super().read(session, offset, **how)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/v1/sessions/s/events?wait=60&from=beginning", 200), ("/v1/stream/s?offset=-1&live=long-poll", 204)],
)
async def test_a_long_poll_that_reads_the_log_is_answered(path: str, expected: int) -> None:
    engine = SlowToRead()
    async with started(engine) as (gateway, served):
        engine.held.clear()
        engine.begun.clear()
        waiting = asyncio.ensure_future(served.call("GET", path))
        await engine.begun.wait()
        await leave(gateway)
        status, page = await waiting
        engine.held.set()
    assert status == expected
    assert page is None or (page["events"], page["cursor"]) == ([], page["from"])


async def test_a_feed_closes_with_1012_after_what_was_published() -> None:
    async with started() as (gateway, served):
        async with served.http.ws_connect("/v1/feed") as socket:
            await socket.send_str(json.dumps({"type": "subscribe", "session": "s"}))
            for kind in ("ready", "subscribed", "events"):
                assert json.loads((await socket.receive()).data)["type"] == kind
            leaving = asyncio.create_task(leave(gateway))
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1012
        await leaving
