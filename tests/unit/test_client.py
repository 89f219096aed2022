"""`SessionClient` through cut connections: a proxy cuts each one after a random number of bytes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support import Served
from wakeline.client import RefusedError, SessionClient


@asynccontextmanager
async def cutting_proxy(url: str, seed: int) -> AsyncIterator[str]:
    """Forwards to `url`, and cuts each connection after 300 to 4,000 bytes of answer."""
    host, port = url.removeprefix("http://").split(":")
    chance = random.Random(seed)
    tasks: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: float) -> None:
        with suppress(ConnectionError):
            while budget > 0 and (data := await source.read(997)):
                sink.write(data[: int(min(budget, len(data)))])
                await sink.drain()
                budget -= len(data)
        sink.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(host, int(port))
        for pumping in (pump(reader, upstream, 1e9), pump(upstream_reader, writer, chance.randint(300, 4000))):
            task = asyncio.ensure_future(pumping)
            tasks.add(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
async def test_every_event_once_in_order_through_cut_connections(
    served: Served, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("wakeline.client._FIRST_RETRY", 0.001)
    await served.publish("s", {"topic": "t", "data": 0})

    async def publish() -> None:
        for n in range(1, 150):
            await served.publish("s", {"topic": "t", "data": n})
            await asyncio.sleep(0.001)

    async with cutting_proxy(served.url, seed) as url, SessionClient(url) as client:
        publishing = asyncio.ensure_future(publish())
        offsets: list[int] = []
        async for received in client.events("s"):
            offsets.append(received.event.offset)
            if len(offsets) == 150:
                break
        await publishing
    assert offsets == list(range(150))


async def test_a_refusal_is_raised_and_not_retried(served: Served) -> None:
    async with SessionClient(served.url) as client:
        with pytest.raises(RefusedError) as refused:
            async for _ in client.events("nowhere"):
                pass
        assert (refused.value.code, refused.value.status) == ("session_not_found", 404)
        with pytest.raises(RefusedError) as refused:
            await client.publish("s", [{"topic": "t"}], publisher="p", sequence=3)
        assert refused.value.details == {"expected": 0}


async def test_publish_and_state(served: Served) -> None:
    async with SessionClient(served.url) as client:
        answer = await client.publish("a/b", [{"topic": "t", "data": "x" * 1_000_000}], publisher="p")
        again = await client.publish("a/b", [{"topic": "t", "data": 1}], publisher="p")
        assert again == {**answer, "duplicate": True}
        assert (await client.state("a/b"))["next_offset"] == 1
        async for received in client.events("a/b"):
            assert received.event.data == "x" * 1_000_000
            assert received.cursor == f"{answer['epoch']}-1"
            break
