"""Reading a real gateway: through cut connections, kills and cancellations, from everywhere, to every end."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.accepting import accepting
from tests.connecting import connecting
from tests.support import Served
from tests.unit.conftest import on_disk
from wakeline.client import EventStream, SessionClient, SessionEvent
from wakeline.errors import (
    CursorAheadError,
    EpochChangedError,
    RequestInvalidError,
    SessionNameInvalidError,
    SessionNotFoundError,
)


@asynccontextmanager
async def cutting_proxy(url: str, seed: int) -> AsyncIterator[str]:
    """Forwards to `url`, and cuts each connection after 300 to 4,000 bytes of answer."""
    host, port = url.removeprefix("http://").split(":")
    chance = random.Random(seed)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: float) -> None:
        try:
            while budget > 0 and (data := await source.read(997)):
                sink.write(data[: int(min(budget, len(data)))])
                await sink.drain()
                budget -= len(data)
        except ConnectionError:
            pass
        finally:
            sink.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connecting(host, port) as (upstream_reader, upstream):
            await asyncio.gather(pump(reader, upstream, 1e9), pump(upstream_reader, writer, chance.randint(300, 4000)))

    async with accepting(serve) as own:
        yield f"http://127.0.0.1:{own}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.client.stream._FIRST_PAUSE", 0.001)


@pytest.fixture
async def client(served: Served) -> AsyncIterator[SessionClient]:
    async with SessionClient(served.url) as client:
        yield client


async def take(events: EventStream[Any], count: int, seconds: float = 60) -> list[SessionEvent[Any]]:
    async with asyncio.timeout(seconds):
        return [await anext(events) for _ in range(count)]


def offsets(events: list[SessionEvent[Any]]) -> list[int]:
    return [event.offset for event in events]


@on_disk
@pytest.mark.parametrize("seed", range(3))
async def test_every_event_once_in_order_through_cut_connections(served: Served, seed: int) -> None:
    await served.publish("s", {"topic": "t", "data": 0})

    async def publish() -> None:
        for n in range(1, 150):
            await served.publish("s", {"topic": "t", "data": n})
            await asyncio.sleep(0.001)

    async with cutting_proxy(served.url, seed) as url, SessionClient(url) as client:
        publishing = asyncio.ensure_future(publish())
        async with client.session("s").events() as events:
            assert offsets(await take(events, 150)) == list(range(150))
        await publishing


async def test_an_event_has_everything_that_came(served: Served, client: SessionClient) -> None:
    answer = await served.publish("a/b", {"topic": "t", "data": {"n": 1}, "run": "r", "activity": "a"})
    async with client.session("a/b").events() as events:
        event = await anext(events)
    assert (event.offset, event.topic, event.data, event.run, event.activity) == (0, "t", {"n": 1}, "r", "a")
    assert event.cursor == f"{answer['epoch']}-1"
    assert event.time.utcoffset() is not None
    stored = (await served.call("GET", "/v1/sessions/a%2Fb/events"))[1]["events"]
    assert json.loads(event.raw) == stored[0]


async def test_reading_begins_wherever_one_likes(client: SessionClient) -> None:
    session = client.session("s")
    await session.publish_many([("even" if n % 2 == 0 else "odd", n) for n in range(6)])
    whole = (await session.page()).events

    async def first(from_: str, topics: str | None = None) -> int:
        async with session.events(from_=from_, topics=topics) as events:
            return (await take(events, 1))[0].offset

    assert await first("beginning") == 0
    assert await first(whole[3].cursor) == 4
    assert await first("tail:2") == 4
    assert await first("tail:2", "odd") == 3
    assert await first("time:2020-01-01T00:00:00Z") == 0
    assert await first("beginning", "od*") == 1

    async def devices(count: int) -> None:
        async with asyncio.timeout(60):
            while (await session.state()).devices != count:
                await asyncio.sleep(0.01)

    await devices(0)
    async with session.events(from_="now") as events:
        waiting = asyncio.ensure_future(anext(events))
        await devices(1)
        await session.publish("t", 6)
        assert (await waiting).offset == 6


@pytest.mark.parametrize(
    ("from_", "kind"),
    [
        ("aaaaaaaaaa-0", EpochChangedError),
        ("EPOCH-7", CursorAheadError),
        ("tail:x", RequestInvalidError),
    ],
)
async def test_positions_that_cannot_be_are_refused(client: SessionClient, from_: str, kind: type[Exception]) -> None:
    epoch = (await client.session("s").publish("t")).epoch
    with pytest.raises(kind):
        await anext(client.session("s").events(from_=from_.replace("EPOCH", epoch)))


async def test_a_session_that_is_not_there_is_refused(client: SessionClient) -> None:
    with pytest.raises(SessionNotFoundError):
        await anext(client.session("nowhere").events())


@pytest.mark.parametrize("name", ["", "x" * 513, "a\nb", "\ud800"])
def test_a_name_that_no_session_can_have_is_refused_at_once(name: str) -> None:
    with pytest.raises(SessionNameInvalidError):
        SessionClient().session(name)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a%2Fb", "x/../y", "ü ?#&=+", "\U0001f600" * 128])
async def test_any_other_name_is_one_session(client: SessionClient, name: str) -> None:
    await client.session(name).publish("t", name)
    assert (await client.session(name).state()).session == name
    async with client.session(name).events() as events:
        assert (await anext(events)).data == name


@on_disk
@pytest.mark.parametrize("seed", range(3))
async def test_a_wait_that_is_cut_off_anywhere_loses_nothing(served: Served, client: SessionClient, seed: int) -> None:
    session = client.session("s")
    await session.publish("t", 0)
    async with (
        cutting_proxy(served.url, seed) as url,
        SessionClient(url) as cut,
        cut.session("s").events() as events,
    ):
        seen: list[int] = []

        async def publish() -> None:
            for n in range(1, 60):
                await session.publish_many([("t", n)])

        publishing = asyncio.ensure_future(publish())
        chance = random.Random(seed)
        async with asyncio.timeout(60):
            while len(seen) < 60:
                with suppress(TimeoutError):
                    seen.append(
                        (await asyncio.wait_for(anext(events), chance.choice([0, 0.0005, 0.002, 0.01, 0.03]))).offset
                    )
        await publishing
    assert seen == list(range(60))


async def test_whatever_ends_a_reading_leaves_no_task_and_no_connection(served: Served, client: SessionClient) -> None:
    await served.publish("s", {"topic": "t"})

    async def devices() -> int:
        return (await client.session("s").state()).devices

    async def read_on(events: EventStream[Any]) -> None:
        async for _ in events:
            pass

    before = asyncio.all_tasks()
    async with client.session("s").events() as events:
        async for _ in events:
            break
    dropped = client.session("s").events()
    async for _ in dropped:
        break
    del dropped
    gc.collect()
    canceled = asyncio.ensure_future(read_on(client.session("s").events()))
    await asyncio.sleep(0.1)
    canceled.cancel()
    await asyncio.gather(canceled, return_exceptions=True)
    closed = client.session("s").events()
    reading = asyncio.ensure_future(read_on(closed))
    await asyncio.sleep(0.1)
    await closed.aclose()
    await asyncio.wait_for(reading, 60)  # it was told that nothing more will come
    del canceled, reading
    gc.collect()
    async with asyncio.timeout(60):
        while await devices() or asyncio.all_tasks() - before - _served_by(served):
            await asyncio.sleep(0.01)


def _served_by(served: Served) -> set[asyncio.Task[Any]]:
    """The gateway runs in the same loop; its tasks are not the client's."""
    return {task for task in asyncio.all_tasks() if "client/" not in str(task.get_coro())}


async def test_a_client_that_is_closed_is_told_apart_from_a_gateway_that_is_gone(served: Served) -> None:
    await served.publish("s", {"topic": "t"})
    client = SessionClient(served.url)
    events = client.session("s").events()
    await anext(events)
    await client.aclose()
    with pytest.raises(RuntimeError, match="expected an open client"):
        await anext(events)
    with pytest.raises(RequestInvalidError, match="expected a URL"):
        SessionClient("127.0.0.1:7777")


async def test_a_stream_has_one_reader_at_a_time(served: Served, client: SessionClient) -> None:
    await served.publish("s", {"topic": "t"})
    async with client.session("s").events(from_="now") as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(events)
        async with asyncio.timeout(60):
            while not (await served.call("GET", "/v1/sessions/s"))[1]["devices"]:
                await asyncio.sleep(0.01)
        await served.publish("s", {"topic": "t"})
        assert (await waiting).offset == 1


async def test_more_streams_than_a_pool_of_connections_would_have(served: Served, client: SessionClient) -> None:
    await served.publish("s", {"topic": "t"})
    streams = [client.session("s").events() for _ in range(150)]
    assert [event.offset for event in await asyncio.gather(*map(anext, streams))] == [0] * 150
    for stream in streams:
        await stream.aclose()
