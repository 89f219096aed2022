"""Connections: half requests are ended in time, too many are refused, and those that are there feel nothing of it."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar

import pytest
import structlog
from aiohttp import web
from yarl import URL

from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.gateway.access import Addresses, Connections
from wakeline.gateway.access.connections import file_limit
from wakeline.gateway.app import gateway
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.settings import Settings

# Half requests are ended soon, and whole ones arrive in time although the process stands still for a moment.
QUICK = {"header_timeout": 1.5, "body_timeout": 1.5, "engine": "memory"}
LONGER = 2.0
"""Seconds that are more than half a request has."""

# For requests that come in time, also if the machine is busy.
PATIENT = {"header_timeout": 10.0, "body_timeout": 10.0, "engine": "memory"}
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"events": [{"topic": "t"}]}'


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused body is not read on for seconds."""
    monkeypatch.setattr("wakeline.gateway.access.connections._LINGER_SECONDS", 0.1)


class Raw:
    """One connection, byte by byte."""

    opened: ClassVar[list[Raw]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.opened.append(self)

    @classmethod
    async def open(cls, served: Served) -> Raw:
        return cls(*await asyncio.open_connection("127.0.0.1", URL(served.url).port))

    async def answer(self) -> tuple[int, dict[str, Any]]:
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            fields = {k.lower(): v for k, v in (line.split(": ") for line in head.split("\r\n")[1:] if ": " in line)}
            body = json.loads(await self.reader.readexactly(int(fields["content-length"])))
        return int(head.split()[1]), body

    async def ended(self, within: float = 60) -> bool:
        """Whether the other side ends it in time; nothing more may come."""
        try:
            async with asyncio.timeout(within):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def close(self) -> None:
        self.writer.close()


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """A test that fails leaves no connection either."""
    yield
    while Raw.opened:
        Raw.opened.pop().writer.transport.abort()


async def refused(served: Served, sent: bytes) -> tuple[int, str, bool]:
    """Send half a request; return the answer's status and code, and whether the connection has ended with it."""
    raw = await Raw.open(served)
    raw.writer.write(sent)
    if b"Expect" in sent:
        assert await raw.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    status, body = await raw.answer()
    ended = await raw.ended()
    raw.close()
    return status, body["error"]["code"], ended


async def test_half_a_head_is_answered_with_408(serve: Serve) -> None:
    served = await serve(**QUICK)
    halves = [b"G", b"GET /healthz", HEAD, HEAD + b"X: y", HEAD + b"X: y\r\n", HEAD + b"X: y\r\n\r"]
    answers = await asyncio.gather(*(refused(served, half) for half in halves))
    assert dict(zip(halves, answers, strict=True)) == dict.fromkeys(halves, (408, "request_timeout", True))


async def test_a_connection_that_says_nothing_is_ended_without_a_word(serve: Serve) -> None:
    raw = await Raw.open(await serve(**QUICK))
    began = asyncio.get_running_loop().time()
    assert await raw.ended()
    assert 1 < asyncio.get_running_loop().time() - began < 30
    raw.close()


async def test_a_byte_now_and_then_does_not_make_a_head_last_longer(serve: Serve) -> None:
    raw = await Raw.open(await serve(**QUICK))
    answer = asyncio.create_task(raw.answer())
    began = asyncio.get_running_loop().time()
    for byte in HEAD + b"X: " + b"y" * 1000:
        raw.writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
        if answer.done():
            break
    assert (await answer)[0] == 408
    assert 1 < asyncio.get_running_loop().time() - began < 30
    raw.close()


async def test_a_head_that_comes_in_time_is_served_however_it_is_cut(serve: Serve) -> None:
    raw = await Raw.open(await serve(**PATIENT))
    whole = HEAD + b"\r\n"
    for cut in range(1, len(whole), 3):
        raw.writer.write(whole[:cut])
        await asyncio.sleep(0.002)
        raw.writer.write(whole[cut:])
        assert (await raw.answer())[0] == 200
    for start in range(len(whole)):
        raw.writer.write(whole[start : start + 1])
        await asyncio.sleep(0)
    assert (await raw.answer())[0] == 200
    raw.writer.write(whole * 3)
    assert [(await raw.answer())[0] for _ in range(3)] == [200] * 3
    raw.close()


async def test_the_second_head_of_a_connection_has_its_own_time(serve: Serve) -> None:
    raw = await Raw.open(await serve(**QUICK))
    for _ in range(3):
        raw.writer.write(HEAD + b"\r\n")
        assert (await raw.answer())[0] == 200
        await asyncio.sleep(LONGER)  # idle is not half a head
    raw.writer.write(HEAD)
    assert (await raw.answer())[0] == 408
    raw.close()


async def test_an_idle_connection_is_ended_too(serve: Serve) -> None:
    raw = await Raw.open(await serve(**QUICK, idle_timeout=0.5))
    raw.writer.write(HEAD + b"\r\n")
    assert (await raw.answer())[0] == 200
    assert await raw.ended()
    raw.close()


async def test_a_body_that_stops_is_answered_with_408(serve: Serve) -> None:
    served = await serve(**QUICK)
    halves = [
        POST + b"Content-Length: 28\r\n\r\n",
        POST + b"Content-Length: 28\r\n\r\n" + BODY[:9],
        POST + b"Transfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\n" + BODY[:9] + b"\r\n",
        POST + b"Content-Length: 28\r\nExpect: 100-continue\r\n\r\n",
    ]
    answers = await asyncio.gather(*(refused(served, half) for half in halves))
    assert dict(zip(halves, answers, strict=True)) == dict.fromkeys(halves, (408, "request_timeout", True))
    assert (await served.call("GET", "/v1/sessions/s"))[0] == 404  # nothing of them was appended


async def test_a_byte_now_and_then_does_not_make_a_body_last_longer(serve: Serve) -> None:
    raw = await Raw.open(await serve(**QUICK))
    raw.writer.write(POST + b"Content-Length: 1000\r\n\r\n")
    answer = asyncio.create_task(raw.answer())
    began = asyncio.get_running_loop().time()
    while not answer.done():
        raw.writer.write(b" ")
        await asyncio.sleep(0.02)
    assert (await answer)[0] == 408
    assert asyncio.get_running_loop().time() - began < 30
    raw.close()


async def test_a_body_that_keeps_coming_may_take_its_time(serve: Serve) -> None:
    raw = await Raw.open(await serve(**QUICK | {"body_timeout": 5.0}))
    raw.writer.write(POST + b"Content-Length: 70028\r\n\r\n")
    for _ in range(70):
        raw.writer.write(b" " * 1000)
        await asyncio.sleep(0.1)
    raw.writer.write(BODY)
    assert (await raw.answer())[0] == 200
    raw.writer.write(POST + b"Content-Length: 28\r\n\r\n" + BODY)
    assert (await raw.answer())[0] == 200
    raw.close()


async def test_requests_that_are_sent_one_behind_the_other_are_served(serve: Serve) -> None:
    raw = await Raw.open(await serve(**PATIENT))
    length = 300_000
    whole = POST + b"Content-Length: %d\r\n\r\n" % length + BODY + b" " * (length - len(BODY))
    sent = whole * 5
    for start in range(0, len(sent), 70_001):
        raw.writer.write(sent[start : start + 70_001])
        await asyncio.sleep(0.005)
    assert [(await raw.answer())[0] for _ in range(5)] == [200] * 5
    raw.close()


async def test_a_stream_is_not_taken_for_a_slow_request(serve: Serve) -> None:
    served = await serve(**QUICK)
    await served.publish("s", {"topic": "t"})
    stream = await served.stream("s")
    await stream.next()
    await asyncio.sleep(LONGER)
    await served.publish("s", {"topic": "t", "data": 2})
    assert (await stream.next())["data"] == 2
    status, body = await served.call("GET", "/v1/sessions/s/events?from=now&wait=2")
    assert (status, body["events"]) == (200, [])
    stream.close()


async def test_a_stream_whose_request_has_a_body_that_never_ends_is_cut(serve: Serve) -> None:
    served = await serve(**QUICK)
    await served.publish("s", {"topic": "t"})
    raw = await Raw.open(served)
    raw.writer.write(
        b"GET /v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nContent-Length: 9\r\n\r\n"
    )
    async with asyncio.timeout(60):
        with suppress(ConnectionError):
            while await raw.reader.read(1000):
                pass
    raw.close()


async def test_a_head_without_end_is_refused(serve: Serve) -> None:
    served = await serve(engine="memory")
    for line in (b"X: " + b"y" * 1000 + b"\r\n", b"y" * 1000):
        raw = await Raw.open(served)
        with suppress(ConnectionError):
            raw.writer.write(HEAD)
            for _ in range(80):
                raw.writer.write(line)
                await asyncio.sleep(0)
            status, body = await raw.answer()
            assert (status, body["error"]["code"]) == (400, "request_invalid")
        assert await raw.ended()
        raw.close()


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
)
async def test_what_is_no_http_is_told_so_in_the_one_shape(
    serve: Serve, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    raw = await Raw.open(await serve(**QUICK))
    raw.writer.write(sent)
    status, body = await raw.answer()
    assert status in (400, 408)
    assert body["error"]["code"] in ("request_invalid", "request_timeout")
    assert await raw.ended()
    assert not caplog.records
    raw.close()


async def test_hundreds_of_half_requests_are_ended_and_others_served(serve: Serve) -> None:
    served = await serve(**QUICK)
    half, answers = [], []
    for number in range(400):
        half.append(raw := await Raw.open(served))
        raw.writer.write((HEAD, POST + b"Content-Length: 28\r\n\r\n", b"G", b"")[number % 4])
        # Read at once: what a reset follows is lost for who comes later.
        answers.append(asyncio.create_task(raw.reader.read(12)))
    for _ in range(100):
        assert (await served.call("GET", "/healthz"))[0] == 200
    assert [(await answer)[-3:] for answer in answers] == [b"408", b"408", b"408", b""] * 100
    for raw in half:
        raw.close()
    async with served.http.get("/metrics") as answer:
        text = await answer.text()
    assert 'wakeline_connections_cut_total{reason="headers"} 300.0' in text
    assert 'wakeline_connections_cut_total{reason="body"} 100.0' in text


async def test_connections_beyond_the_most_are_refused_and_the_others_go_on(serve: Serve) -> None:
    served = await serve(engine="memory", max_connections=10)
    await served.publish("s", {"topic": "t"})
    streams = [await served.stream("s") for _ in range(5)]
    idle = await Raw.open(served)
    idle.writer.write(HEAD + b"\r\n")
    assert (await idle.answer())[0] == 200
    began = asyncio.get_running_loop().time()
    with structlog.testing.capture_logs() as logged:
        more = [await Raw.open(served) for _ in range(30)]
        ended = [asyncio.create_task(raw.ended()) for raw in more]
        async with asyncio.timeout(60):
            while sum(told := [line["refused"] for line in logged if line["event"].startswith("refused")]) < 26:
                await asyncio.sleep(0.05)
            while sum(task.done() for task in ended) < 26:
                await asyncio.sleep(0.05)
        assert sum(told) == sum(task.done() for task in ended) == 26
        for task in ended:
            task.cancel()
    # One a second.
    assert len(told) <= 2 + asyncio.get_running_loop().time() - began
    assert {(line["of"], line["open"]) for line in logged if line["event"].startswith("refused")} == {("all", 10)}
    for _ in range(2):
        idle.writer.write(POST + b"Content-Length: 28\r\n\r\n" + BODY)
        assert (await idle.answer())[0] == 200
    for stream in streams:
        assert [event["offset"] for event in await stream.take(3)] == [0, 1, 2]
        stream.close()
    for raw in [*more, idle]:
        raw.close()
    async with asyncio.timeout(60):
        while await (raw := await Raw.open(served)).ended(0.1):  # there is room again
            raw.close()
    raw.close()


def test_connections_of_one_address_have_a_hard_stop_and_a_proxy_has_none() -> None:
    held = Connections(Settings(address_connections=2), Addresses(["192.0.2.9"]), Metrics())

    class Fake:
        pass

    async def admit(peer: str) -> str | None:
        return held.admit(Fake(), (peer, 1))  # type: ignore[arg-type]

    async def run() -> None:
        assert [await admit("192.0.2.1") for _ in range(5)] == ["192.0.2.1"] * 4 + [None]
        assert [await admit("192.0.2.9") for _ in range(20)] == [""] * 20
        assert [await admit("127.0.0.1") for _ in range(20)] == [""] * 20
        assert len(held) == 44

    asyncio.run(run())


def test_the_most_is_below_what_the_process_may_open() -> None:
    held = Connections(Settings(max_connections=10_000_000), Addresses(), Metrics())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard
    assert held.most == file_limit() - 256


async def test_a_connection_that_is_accepted_while_the_gateway_stops_does_not_delay_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = web.RequestHandler.shutdown
    monkeypatch.setattr(web.RequestHandler, "shutdown", lambda self, _: whole(self, 60))
    monkeypatch.setattr(web.Server, "pre_shutdown", lambda _: None)  # it was accepted after this step
    async with gateway(Settings(engine="memory", port=0, no_auth=True)) as url, Served(url) as served:
        raw = await Raw.open(served)
        raw.writer.write(HEAD + b"\r\n")
        assert (await raw.answer())[0] == 200
        began = monotonic()
    assert monotonic() - began < 60
    assert await raw.reader.read() == b""
    raw.writer.close()
    await raw.writer.wait_closed()


async def test_nothing_is_kept_of_connections_that_have_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connections] = []

    def make(*how: Any) -> Connections:
        made.append(Connections(*how))
        return made[0]

    monkeypatch.setattr("wakeline.gateway.app.Connections", make)
    served = await serve(engine="memory", token_secret=SECRET)
    for number in range(60):
        raw = await Raw.open(served)
        raw.writer.write((HEAD, POST + b"Content-Length: 28\r\n\r\n", HEAD + b"\r\n")[number % 3])
        await asyncio.sleep(0)
        raw.writer.transport.abort()
    assert (await served.call("GET", "/v1/sessions", headers=bearer()))[0] == 200
    await served.http.close()
    (connections,) = made
    async with asyncio.timeout(60):
        while connections:
            await asyncio.sleep(0.05)
    assert (len(connections), connections._heads, connections._bodies, connections._of) == (0, {}, {}, {})
