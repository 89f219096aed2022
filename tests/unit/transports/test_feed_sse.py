"""The feed as server-sent events: composite cursors, and what a plain EventSource gets from them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from tests.connecting import connecting
from tests.support import Served, Stream, close, publish
from tests.unit.conftest import Serve, on_disk
from wakeline.errors import TemporalUnavailableError
from wakeline.events import RUN_STARTED, SESSION_SETTLED
from wakeline.gateway import app, stores
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Arrivals
from wakeline.gateway.transports import feed_sse


def events(*data: object, topic: str = "t") -> list[dict[str, object]]:
    return [{"topic": topic, "data": d} for d in data]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """The engine of the gateway that is started next, so that a test can do what no publisher may."""
    engine = MemoryEngine()
    monkeypatch.setattr(stores, "engine_of", lambda _: engine)
    return engine


@asynccontextmanager
async def stream(served: Served, query: str, **headers: str) -> AsyncIterator[Stream]:
    answer = await served.http.get(
        URL(f"/v1/feed?{query}", encoded=True), headers=headers, timeout=aiohttp.ClientTimeout(90)
    )
    assert answer.status == 200, await answer.text()
    opened = Stream(answer)
    yield opened
    opened.close()


async def status(served: Served, query: str, **headers: str) -> tuple[int, Any]:
    status, answer = await served.call("GET", f"/v1/feed?{query}", headers=headers)
    return status, answer and answer["error"]["code"]


def told(*got: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(one["session"], one["event"]["data"]) for one in got]


async def test_many_sessions_come_replayed_and_live(served: Served) -> None:
    await served.publish("a", *events(0, 1))
    await served.publish("b", *events(10))
    async with stream(served, "session=a&session=b") as opened:
        assert sorted(told(*await opened.take(3))) == [("a", 0), ("a", 1), ("b", 10)]
        await served.publish("b", *events(11))
        assert told(await opened.next()) == [("b", 11)]
        await served.publish("a", *events(2))
        assert told(await opened.next()) == [("a", 2)]


async def test_its_first_bytes_and_headers_are_those_of_any_stream(served: Served) -> None:
    await served.publish("a", *events(0))
    async with stream(served, "session=a&from=now") as opened:
        assert opened.answer.headers["Content-Type"].startswith("text/event-stream")
        assert opened.answer.headers["Cache-Control"] == "no-store"
        comment, retry, identity = await opened.lines()
        assert (comment, retry) == (b": wakeline", b"retry: 1000")
        assert re.fullmatch(rb"id: [\w.-]+", identity)


async def test_an_event_is_one_line_and_the_event_s_own_bytes(served: Served) -> None:
    await served.publish("a é", {"topic": "t", "data": {"text": "x\ny\u2028"}})
    _, page = await served.call("GET", f"/v1/sessions/{quote('a é')}/events")
    async with stream(served, f"session={quote('a é')}") as opened:
        await opened.lines()
        _, data = await opened.lines()
        start = 'data: {"session":"a é","event":{"offset":0,"topic":"t","data":'.encode()
        assert data.startswith(start)
        assert json.loads(data[6:])["event"] == page["events"][0]


@on_disk
async def test_every_id_resumes_every_session_exactly(served: Served) -> None:
    names = ("a", "b", "c")
    for n in range(4):
        for name in names:
            await served.publish(name, *events(n))
    query = "session=a&session=b&session=c"
    async with stream(served, query) as opened:
        got, ids = [], []
        for _ in range(12):
            got += told(await opened.next())
            ids.append(opened.last_id)
    for position, identity in enumerate(ids):
        for how in ({"Last-Event-ID": identity}, {}):
            async with stream(served, query if how else f"{query}&from={identity}", **how) as opened:
                rest = told(*await opened.take(12 - position - 1))
        assert sorted(got[: position + 1] + rest) == sorted((name, n) for name in names for n in range(4))


async def test_a_session_that_the_cursor_does_not_name_begins_at_its_beginning(served: Served) -> None:
    for name in "ab":
        await served.publish(name, *events(0, 1))
    async with stream(served, "session=a") as opened:
        await opened.take(2)
        identity = opened.last_id
    async with stream(served, f"session=b&session=a&from={identity}") as opened:
        assert told(*await opened.take(2)) == [("b", 0), ("b", 1)]
        await served.publish("a", *events(2))
        assert told(await opened.next()) == [("a", 2)]
    async with stream(served, f"session=b&from={identity}") as opened:
        assert told(await opened.next()) == [("b", 0)]


async def test_from_holds_for_all(served: Served) -> None:
    for name in "ab":
        await served.publish(name, *events(*range(5)))
    async with stream(served, "session=a&session=b&from=tail:1") as opened:
        assert sorted(told(*await opened.take(2))) == [("a", 4), ("b", 4)]
    async with stream(served, "session=a&session=b&from=now&topics=t") as opened:
        await opened.lines()
        await served.publish("b", *events(5, topic="u"), *events(6))
        assert told(await opened.next()) == [("b", 6)]


async def next_reset(opened: Stream) -> tuple[str, str]:
    while True:
        lines = await opened.lines()
        if b"event: reset" in lines:
            told = json.loads(lines[-1].removeprefix(b"data: "))
            return told["session"], told["error"]["code"]


async def test_a_session_that_is_gone_or_anew_is_told_and_the_others_go_on(engine: MemoryEngine, serve: Serve) -> None:
    served = await serve()
    for name in ("gone", "anew", "there"):
        await publish(engine, name, 0, 1)
    query = "session=gone&session=anew&session=there"
    async with stream(served, query) as opened:
        await opened.take(6)
        identity = opened.last_id
    await engine.delete_session("gone")
    await engine.delete_session("anew")
    await publish(engine, "anew", 10)
    async with stream(served, query, **{"Last-Event-ID": identity}) as opened:
        assert await next_reset(opened) == ("gone", "session_not_found")
        assert await next_reset(opened) == ("anew", "epoch_changed")
        assert told(await opened.next()) == [("anew", 10)]  # from its beginning
        await publish(engine, "there", 2)
        assert told(await opened.next()) == [("there", 2)]
        identity = opened.last_id
    await publish(engine, "gone", 20)
    async with stream(served, query, **{"Last-Event-ID": identity}) as opened:
        assert told(await opened.next()) == [("gone", 20)]


async def test_a_session_that_is_deleted_while_it_is_read_is_told(engine: MemoryEngine, serve: Serve) -> None:
    served = await serve()
    await publish(engine, "a", 0)
    await publish(engine, "b", 0)
    async with stream(served, "session=a&session=b") as opened:
        await opened.take(2)
        await engine.delete_session("a")
        assert await next_reset(opened) == ("a", "session_not_found")
        await publish(engine, "b", 1)
        assert told(await opened.next()) == [("b", 1)]
        assert "." not in opened.last_id


async def test_a_session_that_is_missing_while_temporal_is_away_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    async def watch(session: str) -> None:
        if session != "a":  # it is in the log
            raise TemporalUnavailableError("Temporal cannot be reached now")

    monkeypatch.setattr(app, "Arrivals", lambda log, _, **more: Arrivals(log, watch, **more))
    served = await serve()
    await served.publish("a", *events(0))
    async with stream(served, "session=b&session=a") as opened:
        assert await next_reset(opened) == ("b", "temporal_unavailable")
        assert told(await opened.next()) == [("a", 0)]
    assert await status(served, "session=b&session=c") == (503, "temporal_unavailable")


async def test_until_settled_ends_when_all_are_and_then_there_is_nothing_to_come_back_for(
    engine: MemoryEngine, serve: Serve
) -> None:
    served = await serve()
    for name in "ab":
        await publish(engine, name, 0, topic=RUN_STARTED)
    query = "session=a&session=b&until=settled&topics=t"
    async with stream(served, query) as opened:
        await opened.lines()
        await publish(engine, "a", 1)
        await publish(engine, "a", 2, topic=SESSION_SETTLED)
        assert told(await opened.next()) == [("a", 1)]
        await publish(engine, "b", 1)
        assert told(await opened.next()) == [("b", 1)]
        await publish(engine, "b", 2, topic=SESSION_SETTLED)
        assert await asyncio.wait_for(opened.rest(), 60) == []
        identity = opened.last_id
    assert await status(served, query, **{"Last-Event-ID": identity}) == (204, None)
    await publish(engine, "a", 3)
    async with stream(served, query, **{"Last-Event-ID": identity}) as opened:
        assert told(await opened.next()) == [("a", 3)]


async def test_closed_sessions_end_the_stream_too(engine: MemoryEngine, serve: Serve) -> None:
    served = await serve()
    for name in "ab":
        await publish(engine, name, 0)
    async with stream(served, "session=a&session=b") as opened:
        await opened.take(2)
        await close(engine, "a")
        await publish(engine, "b", 1)
        assert told(await opened.next()) == [("b", 1)]
        await close(engine, "b")
        assert await asyncio.wait_for(opened.rest(), 60) == []
        identity = opened.last_id
    assert await status(served, "session=a&session=b", **{"Last-Event-ID": identity}) == (204, None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (400, "request_invalid")),
        ("&".join(f"session=s{n}" for n in range(101)), (400, "request_invalid")),
        ("session=", (400, "session_name_invalid")),
        ("session=a%00b", (400, "request_invalid")),
        ("session=none", (404, "session_not_found")),
        ("session=none&session=neither", (404, "session_not_found")),
        ("session=a&from=garbage", (400, "cursor_invalid")),
        ("session=a&from=tail:x", (400, "request_invalid")),
        ("session=a&from=device", (400, "request_invalid")),
        ("session=a&from=AAAAAAAAaaaaaaaaaa-1.", (400, "cursor_invalid")),
        ("session=a&from=AAAAAAAAaaaaaaaaaa-01", (400, "cursor_invalid")),
        ("session=a&from=" + ".".join(["AAAAAAAAaaaaaaaaaa-1"] * 101), (400, "cursor_invalid")),
        ("session=a&until=later", (400, "request_invalid")),
        ("session=a&topics=a,,b", (400, "topic_invalid")),
        ("session=a&device=a%20b", (400, "request_invalid")),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_request_is_answered_as_everywhere(served: Served, query: str, expected: tuple[int, str]) -> None:
    await served.publish("a", *events(0))
    assert await status(served, query) == expected


async def test_a_cursor_ahead_is_a_reset(served: Served) -> None:
    await served.publish("a", *events(0))
    async with stream(served, "session=a") as opened:
        await opened.next()
        ahead = opened.last_id[:-1] + "7"
    async with stream(served, "session=a", **{"Last-Event-ID": ahead}) as opened:
        assert await next_reset(opened) == ("a", "cursor_ahead")
        assert told(await opened.next()) == [("a", 0)]


async def test_the_same_session_twice_is_one(served: Served) -> None:
    await served.publish("a", *events(0))
    async with stream(served, "session=a&session=a") as opened:
        await opened.next()
        await served.publish("a", *events(1))
        assert told(await opened.next()) == [("a", 1)]


async def test_a_hundred_sessions_and_their_cursor_fit_into_a_request(served: Served) -> None:
    names = [f"session-{n}" for n in range(100)]
    for name in names:
        await served.publish(name, *events(0))
    query = "&".join(f"session={name}" for name in names)
    async with stream(served, query) as opened:
        await opened.take(100)
        identity = opened.last_id
    async with stream(served, query, **{"Last-Event-ID": identity}) as opened:
        await served.publish("session-99", *events(1))
        assert told(await opened.next()) == [("session-99", 1)]


async def test_an_idle_feed_is_kept_alive_by_one_comment_however_many_sessions(serve: Serve) -> None:
    served = await serve(keep_alive=0.3)
    for name in "abc":
        await served.publish(name, *events(0))
    async with stream(served, "session=a&session=b&session=c&from=now") as opened:
        await opened.lines()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert [await opened.lines() for _ in range(3)] == [[b":"]] * 3
        assert loop.time() - began > 0.5  # one each 0.3 s, of which the first may be due already


async def test_an_http_1_0_client_gets_it_without_chunks(served: Served) -> None:
    await served.publish("a", *events(0))
    host, port = served.url.removeprefix("http://").split(":")
    async with connecting(host, port) as (reader, writer):
        writer.write(f"GET /v1/feed?session=a HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.readuntil(b'"data":0'), 60)).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body.startswith(b": wakeline\nretry: 1000\nid: ")


async def test_its_device_is_known(served: Served) -> None:
    answer = await served.publish("a", *events(0, 1))
    async with stream(served, "session=a&device=tv") as opened:
        await opened.take(2)
        _, found = await served.call("GET", "/v1/sessions/a/devices")
        assert [(d["device"], d["connected"]) for d in found["devices"]] == [("tv", True)]
    body = {"seen": f"{answer['epoch']}-1"}
    assert (await served.call("PUT", "/v1/sessions/a/devices/tv", json=body))[0] == 200
    async with stream(served, "session=a&device=tv&from=device") as opened:
        assert told(await opened.next()) == [("a", 1)]


@on_disk
async def test_a_client_that_never_reads_is_cut(serve: Serve) -> None:
    served = await serve(write_timeout=0.5)
    for _ in range(40):
        await served.publish("a", {"topic": "t", "data": "x" * 500_000})
    host, port = served.url.removeprefix("http://").split(":")
    async with connecting(host, port, limit=1024) as (_, writer):
        writer.write(f"GET /v1/feed?session=a&device=tv HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(60):
            connected = [None]
            while connected != [False]:
                await asyncio.sleep(0.05)
                _, found = await served.call("GET", "/v1/sessions/a/devices")
                connected = [device["connected"] for device in found["devices"]]


def test_a_composite_cursor_is_read_back() -> None:
    text = f"{feed_sse.key_of('a').decode()}aaaaaaaaaa-12.{feed_sse.key_of('b').decode()}bbbbbbbbbb-0"
    assert feed_sse.parse(text) == {feed_sse.key_of("a"): "aaaaaaaaaa-12", feed_sse.key_of("b"): "bbbbbbbbbb-0"}
    for other in ("", "aaaaaaaaaa-12", "now", text + "\n", text + ".", "." + text, text.replace(".", "..")):
        assert feed_sse.parse(other) is None
