"""What one caller may cost the others: nothing much before it is known, and never the loop for long."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.connecting import connecting
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from tests.unit.conftest import Serve, on_disk
from wakeline.gateway.delivery import starts
from wakeline.gateway.http import sessions
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.transports import longpoll
from wakeline.gateway.transports.durable_streams import reading

EVENTS = "/v1/sessions/s/events"
STREAM = "/v1/stream/s"
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
TIME = "2026-11-21T05:14:43.123Z"
HEADER = {
    "wakeline_export": 1,
    "session": "s",
    "epoch": "abcdefghij",
    "first_offset": 0,
    "next_offset": 0,
    "created": TIME,
    "closed": False,
    "retention": None,
    "runs": [],
}
RUN = {
    "workflow_id": "w",
    "run": "r",
    "run_id": "r",
    "stream": "r",
    "workflow_type": "t",
    "started_at": TIME,
    "status": "completed",
}


@pytest.fixture
async def guarded(serve: Serve) -> Served:
    """A gateway that asks for tokens."""
    return await serve(token_secret=SECRET)


def sent(body: str) -> io.BytesIO:
    """A large body as the test's client takes one."""
    return io.BytesIO(body.encode())


async def refusal(served: Served, method: str, path: str, **how: Any) -> tuple[int, str]:
    status, answer = await served.call(method, path, **how)
    return status, answer["error"]["code"]


# Before a token is checked


@pytest.mark.parametrize("path", ["/v1/feed", "/v1/publish"])
async def test_one_bad_token_ends_a_connection(guarded: Served, path: str) -> None:
    async with guarded.http.ws_connect(path) as socket:
        lines = "\n".join(['{"type":"token","token":"a.b.c"}'] * (400 if path == "/v1/publish" else 1))
        await socket.send_str(lines)
        told = [await socket.receive(60) for _ in range(3)]
    assert [message.type for message in told] == [
        aiohttp.WSMsgType.TEXT,
        aiohttp.WSMsgType.TEXT,
        aiohttp.WSMsgType.CLOSE,
    ]
    assert json.loads(told[1].data)["error"]["code"] == "token_invalid"
    assert told[2].data == 4401


@pytest.mark.parametrize("path", ["/v1/feed", "/v1/publish"])
@pytest.mark.parametrize("size", [16 * 1024 + 1, 1024 * 1024])
async def test_a_first_message_over_16_kib_ends_a_connection(guarded: Served, path: str, size: int) -> None:
    async with guarded.http.ws_connect(path) as socket:
        await socket.receive(60)
        await socket.send_str("x" * size)
        closed = await socket.receive(60)
    assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1009)


async def test_a_first_message_that_does_not_end_is_not_read_for_long(guarded: Served) -> None:
    async with guarded.http.ws_connect("/v1/publish") as socket:
        await socket.receive(60)
        assert socket._conn is not None
        assert socket._conn.transport is not None
        # The head of a masked text frame of 7 MiB, and the first MiB of it.
        socket._conn.transport.write(b"\x81\xff" + (7 << 20).to_bytes(8, "big") + b"mask" + bytes(1 << 20))
        closed = await socket.receive(60)
    assert closed.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert socket.close_code == 1009


async def test_messages_after_a_good_first_one_may_be_large(guarded: Served) -> None:
    async with guarded.http.ws_connect("/v1/publish") as socket:
        event = {"topic": "t", "data": "x" * 200_000}
        for frame in (
            {"type": "token", "token": token()},
            {"type": "open", "channel": 1, "session": "s", "publisher": "p"},
            {"type": "append", "channel": 1, "sequence": 0, "events": [event]},
        ):
            await socket.send_str(json.dumps(frame))  # without waiting for answers
        frames: list[Any] = []
        while not frames or frames[-1]["type"] != "appended":
            frames += map(json.loads, (await socket.receive_str(timeout=60)).split("\n"))
    assert frames[-1]["next_sequence"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", EVENTS),
        ("PUT", "/v1/sessions/s/publishers/p"),
        ("PUT", "/v1/sessions/s"),
        ("POST", "/v1/sessions/s/import"),
        ("PUT", "/v1/sessions/s/devices/d"),
        ("POST", "/v1/nudge"),
        ("POST", "/v1/runs"),
        ("POST", STREAM),
        ("PUT", STREAM),
    ],
)
@pytest.mark.parametrize("claims", [None, {"allow": []}])
async def test_the_body_of_a_refused_caller_is_not_awaited(
    guarded: Served, method: str, path: str, claims: dict[str, Any] | None
) -> None:
    headers = {} if claims is None else bearer(**claims)
    head = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Encoding: gzip", "Content-Length: 1000000"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    async with connecting("127.0.0.1", guarded.url.rsplit(":", 1)[1]) as (reader, writer):
        writer.write(("\r\n".join([*head, "Content-Type: application/json"]) + "\r\n\r\n").encode() + b"no gzip at all")
        status = await asyncio.wait_for(reader.readline(), 60)
    assert status.split()[1] in ((b"401",) if claims is None else (b"403",))


# Sessions that were imported


@on_disk
async def test_a_stream_with_a_gap_of_its_own_is_read(served: Served) -> None:
    gap = {"missed": 3, "first_available": 3, "source": "retention"}
    lines = [
        {**HEADER, "next_offset": 2, "content_type": "application/json"},
        {"offset": 0, "topic": "$gap", "data": gap, "time": "2026-11-21T05:14:43.123Z"},
        {"offset": 1, "topic": "message", "data": 7, "time": "2026-11-21T05:14:43.123Z"},
        {"wakeline_export_end": 2},
    ]
    file = "\n".join(map(json.dumps, lines))
    status, answer = await served.call("POST", "/v1/sessions/s/import", data=file, headers=NDJSON)
    if status == 400:
        assert answer["error"]["code"] == "import_invalid"  # it may as well be refused
        return
    async with asyncio.timeout(60):
        assert await served.call("GET", STREAM) == (200, [7])


async def test_an_import_has_at_most_10_000_runs(served: Served) -> None:
    file = [{**HEADER, "runs": [{**RUN, "run": f"r{number}"} for number in range(40_000)]}, {"wakeline_export_end": 0}]
    body = "\n".join(map(json.dumps, file))
    answer = await refusal(served, "POST", "/v1/sessions/s/import", data=sent(body), headers=NDJSON)
    assert answer == (400, "import_invalid")


# Lists and filters


async def test_a_list_costs_in_proportion_to_its_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve(engine="sqlite", token_secret=SECRET)
    for user in ("alice", "bob"):
        for number in range(30):
            path = f"/v1/sessions/{user}-{number:02}"
            await served.call("PUT", path, headers=bearer(sessions=["*"]))
    read: list[Sequence[str]] = []
    inner = SqliteEngine.get_records

    async def noted(self: SqliteEngine, keys: Sequence[str]) -> Any:
        read.append(keys)
        return await inner(self, keys)

    monkeypatch.setattr(SqliteEngine, "get_records", noted)
    status, page = await served.call("GET", "/v1/sessions?limit=1", headers=bearer(sessions=["carol-*"]))
    assert (status, page) == (200, {"sessions": [], "after": None})
    status, page = await served.call("GET", "/v1/sessions?limit=25", headers=bearer(sessions=["bob-*", "alice-07"]))
    assert [s["session"] for s in page["sessions"]] == ["alice-07", *(f"bob-{n:02}" for n in range(24))]
    assert page["after"] == "bob-23"
    runs = [keys for keys in read if any(key.startswith("runs") for key in keys)]
    assert len(runs) == 1, "the runs of all sessions of a page are read at once"
    assert {key.partition("/")[2] for key in runs[0]} == {s["session"] for s in page["sessions"]}


@on_disk
async def test_a_list_ends_early_if_its_sessions_are_large(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_LISTED_BYTES", 0)
    for name in ("a", "b", "c"):
        file = [
            {**HEADER, "session": name, "next_offset": 0, "runs": [RUN]},
            {"wakeline_export_end": 0},
        ]
        body = "\n".join(map(json.dumps, file))
        status, answer = await served.call("POST", f"/v1/sessions/{name}/import", data=body, headers=NDJSON)
        assert status == 201, answer
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        _, page = await served.call("GET", f"/v1/sessions?after={after}")
        assert len(page["sessions"]) <= 1
        found += [state["session"] for state in page["sessions"]]
        after = page["after"]
    assert found == ["a", "b", "c"]


def lines_of(count: int, topic: str = "t", size: int = 1) -> str:
    return f'{{"topic":"{topic}","data":"{"x" * size}"}}\n' * count


@on_disk
async def test_a_filter_that_matches_nothing_is_answered_with_its_place(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (longpoll, starts, reading):
        monkeypatch.setattr(module, "MOST_PAGES", 2)
    await served.publish("s", {"topic": "rare"})
    body = lines_of(6_000, size=200)
    assert (await served.call("POST", EVENTS, data=sent(body), headers=NDJSON))[0] == 200
    await served.publish("s", {"topic": "rare"})

    # Forwards: a page may be empty, and its cursor leads on.
    found: list[int] = []
    pages, cursor, done = 0, "beginning", False
    while not done:
        _, page = await served.call("GET", f"{EVENTS}?topics=rare&limit=1&wait=1&from={cursor}")
        assert len(page["events"]) <= 1
        found += [event["offset"] for event in page["events"]]
        pages, cursor, done = pages + 1, page["cursor"], page["up_to_date"]
    assert found == [0, 6_001]
    assert pages > 3

    # Backwards likewise; the last page has no `previous`.
    found, before = [], "now"
    while before is not None:
        _, page = await served.call("GET", f"{EVENTS}?topics=rare&limit=5&before={before}")
        found += [event["offset"] for event in page["events"]]
        before = page["previous"]
    assert found == [6_001, 0]

    # `tail:N` begins where it has come to.
    found, cursor, done = [], "tail:2", False
    while not done:
        _, page = await served.call("GET", f"{EVENTS}?topics=rare&from={cursor}")
        found += [event["offset"] for event in page["events"]]
        cursor, done = page["cursor"], page["up_to_date"]
    assert found == [6_001]


@on_disk
async def test_a_long_poll_of_a_stream_is_answered_with_its_place(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_PAGES", 2)
    served = await serve(token_secret=SECRET)
    everything, rare = bearer(), bearer(topics=["rare"])
    body = lines_of(3_000)
    await served.call("POST", EVENTS, data=sent(body), headers={**NDJSON, **everything})
    await served.call("POST", EVENTS, data='{"topic":"rare"}', headers={**NDJSON, **everything})
    found: list[dict[str, Any]] = []
    offset, polls = "-1", 0
    while not found:
        async with served.http.get(f"{STREAM}?live=long-poll&offset={offset}", headers=rare) as answer:
            assert answer.status == 200
            found = await answer.json()
            offset, polls = answer.headers["Stream-Next-Offset"], polls + 1
    assert ([event["topic"] for event in found], polls) == (["rare"], 3)


@pytest.mark.parametrize("count", [100, 101])
async def test_a_reader_names_at_most_100_topics(served: Served, count: int) -> None:
    await served.publish("s", {"topic": "t1"})
    topics = [f"t{number}" for number in range(count)]
    many = count > 100
    status, answer = await served.call("GET", f"{EVENTS}?topics={','.join(topics)}")
    assert (status, answer["error"]["code"] if many else None) == ((400, "request_invalid") if many else (200, None))
    async with served.http.ws_connect("/v1/feed") as socket:
        await socket.receive(60)
        await socket.send_json({"type": "subscribe", "session": "s", "topics": topics})
        assert (await socket.receive_json())["type"] == ("error" if many else "subscribed")


@on_disk
async def test_readers_of_many_sets_of_topics_delay_no_other(served: Served) -> None:
    await served.publish("s", {"topic": "t0"})
    sockets = [await served.http.ws_connect("/v1/feed") for _ in range(60)]
    for number, socket in enumerate(sockets):
        topics = [f"t{number}*", *(f"x{number}-{other}*" for other in range(99))]
        await socket.send_json({"type": "subscribe", "session": "s", "topics": topics, "from": "now"})
        assert [(await socket.receive_json())["type"] for _ in range(2)] == ["ready", "subscribed"]
    body = lines_of(2_000, "t59")
    assert (await served.call("POST", EVENTS, data=sent(body), headers=NDJSON))[0] == 200
    told = 0
    while told < 2_000:
        frame = await sockets[59].receive_json(timeout=60)
        told += len(frame["events"])
    for socket in sockets:
        await socket.close()


# What is sent


@on_disk
async def test_the_compact_form_is_sent_in_pieces(served: Served) -> None:
    keyed = [{"topic": "state", "key": f"k{number}", "data": "x" * 60_000} for number in range(60)]
    for start in range(0, 60, 10):
        await served.publish("s", *keyed[start : start + 10])
    await served.publish("s", {"topic": "state", "key": "k0", "data": "new"}, {"topic": "plain"})
    async with served.http.get(f"{EVENTS}?view=compact", headers={"Accept-Encoding": "gzip"}) as answer:
        page = await answer.json()
        assert answer.headers.get("Transfer-Encoding") == "chunked"
    assert [event["offset"] for event in page["events"]] == list(range(1, 62))
    assert (page["cursor"].rsplit("-")[-1], page["up_to_date"]) == ("62", True)

    # Readers that do not read hold a piece each.
    async with AsyncExitStack() as gone:
        for _ in range(8):
            opening = connecting("127.0.0.1", served.url.rsplit(":", 1)[1], limit=1024)
            _, writer = await gone.enter_async_context(opening)
            writer.write(f"GET {EVENTS}?view=compact HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, _ = await served.call("GET", "/healthz")
        assert status == 200


@on_disk
@pytest.mark.parametrize("view", ["raw", "compact"])
async def test_a_frame_has_at_most_512_kib_of_events_or_one(served: Served, view: str) -> None:
    sizes = [200_000, 50_000, 400_000, 100_000, 1_000_000, 10, 250_000, 10]
    for number, size in enumerate(sizes):
        await served.publish("s", {"topic": "t", "key": f"{number}", "data": "x" * size})
    async with served.http.ws_connect("/v1/feed") as socket:
        await socket.receive(60)
        await socket.send_json({"type": "subscribe", "session": "s", "view": view})
        frames: list[tuple[int, int]] = []
        while sum(count for _, count in frames) < len(sizes):
            text = await socket.receive_str(timeout=60)
            frame = json.loads(text)
            if frame["type"] == "events":
                frames.append((len(text), len(frame["events"])))
    assert all(size <= 516 * 1024 or count == 1 for size, count in frames)


@pytest.mark.parametrize("path", [EVENTS, "/v1/nudge"])
async def test_a_client_that_sends_all_before_it_reads_receives_the_refusal(served: Served, path: str) -> None:
    def post() -> tuple[int, int]:
        connection = http.client.HTTPConnection(URL(served.url).authority, timeout=60)
        try:
            connection.request("POST", path, body=bytes(12_000_000), headers=JSON)
            refused = connection.getresponse()
            refused.read()
            connection.request("GET", "/healthz")
            return refused.status, connection.getresponse().status
        finally:
            connection.close()

    assert await asyncio.to_thread(post) == (413, 200)
