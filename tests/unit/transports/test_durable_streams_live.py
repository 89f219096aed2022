"""Streams as server-sent events: what is written, that it is made once, and how it resumes and ends."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.durable import BYTES, CLOSED, JSON, TEXT, Durable
from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.conftest import Serve, on_disk
from wakeline.gateway.transports.durable_streams.content import Content


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """How many events were encoded each time a method of `Content` was called."""
    made: list[int] = []
    real = getattr(Content, name)

    def count(*given: Any) -> bytes:
        made.append(len(given[-1]))
        encoded: bytes = real(*given)
        return encoded

    monkeypatch.setattr(Content, name, count)
    return made


async def test_what_a_reader_is_told(served: Served) -> None:
    stream = Durable(served)
    end = (await stream.put(JSON, [1, 2])).next
    live = await stream.live()
    assert live.answer.headers["Content-Type"] == "text/event-stream"
    assert live.answer.headers["Cache-Control"] == "no-cache, no-store"
    assert live.answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert await live.data() == "[1,2]"
    assert live.last_id == end
    told = await live.control()
    assert told.pop("streamCursor").isdigit()
    assert told == {"streamNextOffset": end, "upToDate": True}
    later = (await stream.post([{"x": "y"}])).next
    assert await live.data() == '[{"x": "y"}]'
    told = await live.control()
    assert (told["streamNextOffset"], told["upToDate"], live.last_id) == (later, True, later)
    closed = (await stream.post(None, **CLOSED)).next
    frames = [await live.control()]
    if "streamClosed" not in frames[-1]:  # the event of the closing, and then that it was the last
        frames.append(await live.control())
    assert frames[-1] == {"streamNextOffset": closed, "upToDate": True, "streamClosed": True}
    assert await live.frame() is None


async def test_text_and_bytes_come_as_they_are(served: Served) -> None:
    text = Durable(served, "text")
    await text.put(TEXT, b" leading\r\n\rtwo: three\n")
    live = await text.live()
    # What ends a line of an event stream is a line break when it arrives.
    assert await live.data() == " leading\n\ntwo: three\n"
    live.close()
    other = Durable(served, "bytes")
    await other.put(BYTES, bytes(range(256)))
    live = await other.live()
    assert live.answer.headers["Stream-SSE-Data-Encoding"] == "base64"
    assert base64.b64decode(await live.data()) == bytes(range(256))
    live.close()


async def test_last_event_id_wins_over_the_offset(served: Served) -> None:
    stream = Durable(served)
    first = (await stream.put(JSON, [1])).next
    await stream.post([2])
    live = await stream.live("?offset=-1&live=sse", **{"Last-Event-ID": first})
    assert await live.data() == "[2]"
    live.close()
    live = await stream.live("?offset=-1&live=sse", **{"Last-Event-ID": ""})
    assert await live.data() == "[1,2]"
    live.close()
    assert (await stream.get("?offset=-1&live=sse", **{"Last-Event-ID": "x"})).error == (400, "request_invalid")


async def test_an_event_source_that_has_everything_of_a_closed_stream_is_told_to_stop(served: Served) -> None:
    stream = Durable(served)
    end = (await stream.put(JSON, [1], **CLOSED)).next
    stop = await stream.get("?offset=-1&live=sse", **{"Last-Event-ID": end})
    assert (stop.status, stop.body, stop.next) == (204, b"", end)
    # Others are told as the protocol has it.
    live = await stream.live(f"?offset={end}&live=sse")
    assert (await live.control())["streamClosed"]
    assert await live.frame() is None


async def test_the_first_position_of_now_can_be_resumed_from(served: Served) -> None:
    stream = Durable(served)
    await stream.put(JSON, [1])
    live = await stream.live("?offset=now&live=sse")
    await live.control()
    live.close()
    await stream.post([2])
    again = await stream.live("?offset=now&live=sse", **{"Last-Event-ID": live.last_id})
    assert await again.data() == "[2]"
    again.close()


@on_disk
async def test_a_long_stream_comes_in_pages_each_with_its_position(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    for n in range(20):
        await stream.post([str(n) * 20_000, n])
    live = await stream.live()
    got: list[Any] = []
    told: list[dict[str, Any]] = []
    while not (told and told[-1].get("upToDate")):
        got += [item for item in json.loads(await live.data()) if isinstance(item, int)]
        told.append(await live.control())
    assert got == list(range(20))
    assert len(told) > 1
    offsets = [control["streamNextOffset"] for control in told]
    assert offsets == sorted(set(offsets))
    live.close()


async def test_a_live_event_is_made_once_for_all(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Durable(served)
    await stream.put(JSON, ["begin"])
    readers = [await stream.live() for _ in range(20)]
    for reader in readers:
        assert await reader.data() == '["begin"]'
        await reader.control()
    made = counted(monkeypatch, "sse")
    await stream.post(["one"])
    frames = [(await reader.data(), await reader.control()) for reader in readers]
    assert len({json.dumps(frame) for frame in frames}) == 1
    assert len(made) == 1
    for reader in readers:
        reader.close()


@on_disk
async def test_readers_that_come_together_share_their_pages(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Durable(served)
    await stream.put(JSON, ["x"] * 100)
    made = counted(monkeypatch, "sse")
    readers = await asyncio.gather(*[stream.live() for _ in range(20)])
    await asyncio.gather(*[reader.data() for reader in readers])
    assert len(made) == 1
    waiting = [asyncio.ensure_future(stream.get("?offset=now&live=long-poll")) for _ in range(20)]
    async with asyncio.timeout(60):
        while await served.metric("wakeline_connections_open") < 40:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    bodies = counted(monkeypatch, "body")
    await stream.post(["y"])
    answers = await asyncio.gather(*waiting)
    assert {answer.body for answer in answers} == {b'["y"]'}
    assert len([made for made in bodies if made]) == 2, (
        "one page for those who polled, one frame for those who are live"
    )
    for reader in readers:
        reader.close()


@on_disk
async def test_a_reader_ends_when_the_stream_is_deleted(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    live = await stream.live()
    await live.control()
    waiting = asyncio.ensure_future(stream.get("?offset=now&live=long-poll"))
    await asyncio.sleep(0.2)
    await stream.delete()
    assert await live.frame() is None
    assert (await asyncio.wait_for(waiting, 60)).status in (204, 404)
    assert (await stream.get("?offset=-1&live=sse")).error == (404, "session_not_found")


async def test_a_reader_ends_with_its_token(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    await Durable(served, Authorization=f"Bearer {token()}").put()
    short = Durable(served, Authorization=f"Bearer {token(exp=time.time() + 8)}")
    live = await short.live()
    await live.control()
    began = time.monotonic()
    waiting = asyncio.ensure_future(short.get("?offset=now&live=long-poll"))
    assert await live.frame() is None
    assert time.monotonic() - began < 30
    assert (await waiting).status == 204


async def test_connections_are_limited_as_others(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, user_connections=1)
    stream = Durable(served, Authorization=f"Bearer {token()}")
    await stream.put()
    live = await stream.live()
    assert (await stream.get("?offset=now&live=sse")).error == (429, "limit_reached")
    assert (await stream.get("?offset=now&live=long-poll")).error == (429, "limit_reached")
    assert (await stream.get("?offset=now")).status == 200
    live.close()


async def test_publishing_is_limited_by_messages(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, publish_rate=10)
    stream = Durable(served, Authorization=f"Bearer {token()}")
    await stream.put()
    assert (await stream.post(list(range(500)))).status == 204
    refused = await stream.post([1])
    assert refused.error == (429, "limit_reached")
    assert int(refused.headers["Retry-After"]) > 1


async def test_long_poll_answers_what_comes(serve: Serve) -> None:
    served = await serve(long_poll_timeout=0.3)
    stream = Durable(served)
    end = (await stream.put(JSON, [1])).next
    nothing = await stream.get(f"?offset={end}&live=long-poll&cursor=1")
    assert (nothing.status, nothing.next, nothing.headers["Stream-Up-To-Date"]) == (204, end, "true")
    cursor = int(nothing.headers["Stream-Cursor"])
    again = await stream.get(f"?offset={end}&live=long-poll&cursor={cursor + 7}")
    assert int(again.headers["Stream-Cursor"]) > cursor + 7
    stream = Durable(await serve())  # which waits as long as it takes
    end = (await stream.put(JSON, [1])).next
    waiting = asyncio.ensure_future(stream.get(f"?offset={end}&live=long-poll"))
    await asyncio.sleep(0.1)
    await stream.post(None, **CLOSED)
    closed = await waiting
    assert (closed.status, closed.headers["Stream-Closed"]) == (204, "true")
    assert "Stream-Cursor" not in closed.headers
    # Wakeline's own events are not messages, but they are positions.
    assert closed.next > end


async def test_wakelines_own_events_move_a_reader_on(served: Served) -> None:
    stream = Durable(served)
    await stream.put(JSON, [1])
    live = await stream.live("?offset=now&live=sse")
    before = (await live.control())["streamNextOffset"]
    await stream.post(None, **CLOSED)
    assert (await live.control())["streamNextOffset"] > before
    live.close()


@asynccontextmanager
async def unread(served: Served, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has asked, whose answer stays where it is but for some kilobytes."""
    port = int(served.url.rpartition(":")[2])
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 16)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            yield reader
        finally:
            writer.transport.abort()


@on_disk
async def test_a_reader_from_under_whom_retention_takes_events_is_cut(served: Served) -> None:
    stream = Durable(served)
    await stream.put(BYTES)
    async with unread(served, f"{stream.path}?offset=-1&live=sse") as reader:
        for _ in range(20):
            await stream.post(b"x" * 700_000, BYTES)
        status, _ = await served.call("PUT", "/v1/sessions/s", json={"retention": {"events": 1}})
        assert status == 200
        async with asyncio.timeout(60):
            while (await served.call("GET", "/v1/sessions/s"))[1]["first_offset"] != 19:
                await asyncio.sleep(0.1)
        got = b""
        async with asyncio.timeout(60):
            while piece := await reader.read(1 << 16):
                got += piece
    assert got.endswith(b"\r\n0\r\n\r\n")
    assert b"streamClosed" not in got
    last = re.findall(rb"\nid:(\S+)\n\n", got)[-1].decode()
    assert last < (await stream.head()).next
    assert (await stream.get(f"?offset={last}&live=sse")).error == (410, "offset_gone")
