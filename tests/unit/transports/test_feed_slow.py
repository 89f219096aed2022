"""Many sessions on one connection: none waits for another, and a client that takes nothing is cut."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.feeds import CLOSE, PING, Raw, feed, frame, raw
from tests.support import Served, publish
from tests.unit.conftest import Serve, on_disk
from tests.unit.delivery.test_handover import Watcher
from wakeline.gateway.app import gateway
from wakeline.gateway.delivery import Device, Hub, Lane
from wakeline.gateway.log import PAGE_BYTES
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Runs
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports import feed_frames
from wakeline.gateway.transports.feed import SharedConnection
from wakeline.gateway.transports.feed_socket import FeedSocket

LANE = Lane(feed_frames.events, b"")


class Transport:
    """A transport whose client takes bytes when the test says so, and its protocol and writer."""

    def __init__(self) -> None:
        self.unsent: list[bytes] = []
        self.sent: list[bytes] = []
        self.most = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def writing_paused(self) -> bool:
        return self.get_write_buffer_size() > 64 * 1024

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.unsent))

    def get_extra_info(self, _: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.unsent.clear()

    def write(self, data: bytes) -> None:
        self.unsent.append(data)
        self.most = max(self.most, self.get_write_buffer_size())

    async def drain(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    async def take(self) -> None:
        """The client takes everything that is unsent."""
        self.sent += self.unsent
        self.unsent.clear()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
        await asyncio.sleep(0.01)

    def frames(self) -> list[str]:
        """Which session each frame that was sent is of."""
        return [json.loads(data[data.index(b"{") :])["session"] for data in self.sent]


@asynccontextmanager
async def shared(timeout: float = 30) -> AsyncIterator[tuple[Transport, SharedConnection]]:
    transport = Transport()
    request: Any = SimpleNamespace(transport=transport, protocol=transport, writer=transport)
    connection = SharedConnection(request, timeout)
    yield transport, connection
    connection.abort()


@asynccontextmanager
async def reading(
    hub: Hub, connection: SharedConnection, session: str, offset: int | None = None
) -> AsyncIterator[Device]:
    async with hub.attach(session) as channel:
        device = Device(channel, connection, LANE, channel.tail if offset is None else offset)
        task = asyncio.ensure_future(device.run())
        await asyncio.sleep(0.01)
        yield device
        task.cancel()
        await asyncio.wait([task])


async def test_a_live_session_waits_for_no_more_than_a_page_of_one_that_catches_up() -> None:
    engine = MemoryEngine()
    hub = Hub(engine, Runs(engine).settled)
    for _ in range(100):
        await publish(engine, "long", *(["x" * 900] * 1000))  # 100,000 events, 370 pages
    await publish(engine, "live", 0)
    async with (
        shared() as (transport, connection),
        reading(hub, connection, "live"),
        reading(hub, connection, "long", 0),
    ):
        for n in range(10):
            await publish(engine, "live", n)  # while a page of the other one is unsent
            await asyncio.sleep(0.01)
            await transport.take()
            await transport.take()
        await transport.take()
    order = transport.frames()
    assert order.count("live") == 10
    assert "long,long,long" not in ",".join(order)
    assert transport.most < PAGE_BYTES * 1.5 + 64 * 1024


async def test_those_that_catch_up_take_turns_and_hold_one_page_in_all() -> None:
    engine = MemoryEngine()
    hub = Hub(engine, Runs(engine).settled)
    names = [f"s{n}" for n in range(20)]
    for name in names:
        await publish(engine, name, *(["x" * 10_000] * 200))
    async with shared() as (transport, connection):
        opened = [reading(hub, connection, name, 0) for name in names]
        for one in opened:
            await one.__aenter__()
        for _ in range(60):
            await transport.take()
        for one in opened:
            await one.__aexit__(None, None, None)
    order = transport.frames()
    assert transport.most < PAGE_BYTES * 1.5
    # The first one had the connection to itself before the others came.
    assert sorted(order[1:21]) == sorted(order[21:41]) == sorted(names)


async def test_one_that_leaves_while_it_waits_does_not_take_the_others_with_it() -> None:
    engine = MemoryEngine()
    hub = Hub(engine, Runs(engine).settled)
    for name in "abc":
        await publish(engine, name, *(["x" * 10_000] * 60))
    async with shared() as (transport, connection), reading(hub, connection, "a", 0):
        async with reading(hub, connection, "b", 0):
            pass  # it leaves while the page of the first is unsent
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.drained()
        async with reading(hub, connection, "c", 0):
            for _ in range(10):
                await transport.take()
    assert {"a", "c"} <= set(transport.frames())


async def test_what_a_device_was_given_is_exact_in_the_middle_of_a_fan_out() -> None:
    engine = MemoryEngine()
    hub = Hub(engine, Runs(engine).settled)
    await publish(engine, "s", 0)
    async with hub.attach("s") as channel:
        lanes = [Lane(feed_frames.events, b""), Lane(feed_frames.sse, b"")]
        devices = [Watcher(lane) for lane in lanes for _ in range(300)]
        for device in devices:
            channel.join(device, channel.tail)
        await publish(engine, "s", 1, 2)
        given: set[tuple[int, int | None]] = set()
        for _ in range(6):
            given |= {(len(device.written), channel.given(device)) for device in devices}
            await asyncio.sleep(0)
        assert given == {(0, 1), (1, 3)}


async def test_it_is_exact_too_when_it_leaves_while_a_page_is_written() -> None:
    engine = MemoryEngine()
    hub = Hub(engine, Runs(engine).settled)
    await publish(engine, "s", *(["x" * 10_000] * 60))
    async with shared() as (transport, connection):
        async with reading(hub, connection, "s", 0) as device:
            await transport.take()
        last = (transport.sent + transport.unsent)[-1]
    offsets = [event["offset"] for event in json.loads(last[last.index(b"{") :])["events"]]
    assert 0 < device.offset == offsets[-1] + 1 < 60


async def fill(served: Served, session: str) -> None:
    """Publish far more than the gateway's socket holds."""
    for _ in range(20):
        await served.publish(session, {"topic": "t", "data": "x" * 500_000})


async def subscribe_unread(client: Raw, session: str) -> None:
    """Subscribe, and read no event."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.send_json({"type": "subscribe", "session": session})
    assert (await client.next_json())["type"] == "subscribed"


@on_disk
async def test_a_client_that_never_reads_is_cut_with_4408_and_hurts_nobody(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The close frame is sent a second before the cut, which discards it with all that is unsent: on a busy machine a
    # client that begins to read in between comes too late.
    monkeypatch.setattr(FeedSocket, "goodbye_seconds", 60.0)
    served = await serve(write_timeout=0.5, keep_alive=60)
    await served.publish("s", {"topic": "t", "data": 0})
    await fill(served, "big")
    async with feed(served) as healthy, raw(served.url, "?device=phone", limit=1024) as client:
        await healthy.subscribe("s")
        await healthy.events(1)
        await subscribe_unread(client, "big")
        for n in range(5):
            await served.publish("s", {"topic": "t", "data": n})
            await healthy.events(1)
        async with asyncio.timeout(60):
            while (await served.call("GET", "/v1/sessions/big/devices"))[1]["devices"][0]["connected"]:
                await asyncio.sleep(0.01)
        assert await client.closed() == (4408, "the client accepted no data for 0.5 s")


async def test_a_client_that_does_not_read_its_close_frame_is_cut(serve: Serve) -> None:
    served = await serve(write_timeout=0.2, keep_alive=60)
    await fill(served, "big")
    async with raw(served.url, limit=1024) as client:
        await subscribe_unread(client, "big")
        async with asyncio.timeout(60):
            while not client.writer.transport.is_closing():
                client.send_json({"type": "ping"})
                await asyncio.sleep(0.05)


async def test_a_client_that_only_sends_is_cut_too(serve: Serve) -> None:
    """Its answers pile up: what it sends is not taken any more, and then it is cut."""
    served = await serve(write_timeout=0.5)
    async with raw(served.url, limit=1024) as client:
        ping = frame(json.dumps({"type": "ping", "data": "x" * 60_000}).encode())
        for _ in range(400):
            client.writer.write(ping)
        await asyncio.sleep(0.2)
        assert client.writer.transport.get_write_buffer_size() > 0
        async with asyncio.timeout(60):
            while not client.writer.transport.is_closing():
                client.writer.write(ping)
                await asyncio.sleep(0.05)


async def test_a_client_that_answers_no_ping_is_cut(serve: Serve) -> None:
    served = await serve(keep_alive=4.0)  # and as long for a pong: a busy machine sends one late
    await served.publish("s", {"topic": "t", "data": 0})
    async with raw(served.url) as silent, feed(served) as healthy:
        silent.send_json({"type": "subscribe", "session": "s"})
        # One that waits for what comes answers pings by itself: it is there as long as it likes.
        waiting = asyncio.ensure_future(healthy.next())
        came = await silent.rest()
        assert PING in came
        assert CLOSE not in came
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await healthy.send("ping")
        assert (await waiting)["type"] == "pong"
    async with asyncio.timeout(60):
        while (await served.call("GET", "/v1/sessions/s"))[1]["devices"]:
            await asyncio.sleep(0.01)


async def test_the_gateway_stops_in_time_whatever_clients_do() -> None:
    async with gateway(Settings(engine="memory", port=0, no_auth=True)) as url, Served(url) as served:
        await fill(served, "big")
        clients = [raw(url, limit=1024) for _ in range(3)]
        opened = [await client.__aenter__() for client in clients]
        await subscribe_unread(opened[0], "big")
        await served.publish("s", {"topic": "t", "data": 0})
        opened[1].send_json({"type": "subscribe", "session": "s"})
        started = time.monotonic()
    assert time.monotonic() - started < 30
    for client in clients:
        await client.__aexit__(None, None, None)
