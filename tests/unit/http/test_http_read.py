from __future__ import annotations

import asyncio
import random
import re
import socket

import pytest

from tests.connecting import connecting
from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve, on_disk

PATH = "/v1/sessions/s/events"


def events(*data: object, topic: str = "t") -> list[dict[str, object]]:
    return [{"topic": topic, "data": d} for d in data]


async def test_a_stream_replays_and_goes_on_live(served: Served) -> None:
    await served.publish("s", *events(0, 1))
    stream = await served.stream("s")
    assert [e["data"] for e in await stream.take(2)] == [0, 1]
    answer = await served.publish("s", *events(2, 3))
    assert [e["offset"] for e in await stream.take(2)] == [2, 3]
    assert stream.last_id == f"{answer['epoch']}-4"
    stream.close()


async def test_its_headers_and_first_bytes_suit_browsers_and_proxies(served: Served) -> None:
    answer = await served.publish("s", *events(0))
    stream = await served.stream("s", "from=now")
    headers = stream.answer.headers
    assert stream.answer.status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
    assert await stream.lines() == [b": wakeline", b"retry: 1000", f"id: {answer['epoch']}-1".encode()]
    stream.close()


async def test_a_frame_is_an_id_and_one_line_of_data(served: Served) -> None:
    answer = await served.publish("s", {"topic": "t", "data": {"text": "a\nb"}})
    stream = await served.stream("s")
    await stream.lines()
    identity, data = await stream.lines()
    assert identity == f"id: {answer['epoch']}-1".encode()
    assert data.startswith(b'data: {"offset":0,"topic":"t","data":{"text": "a\\nb"},"time":"')
    stream.close()


@pytest.mark.parametrize("by", ["header", "query", "both"])
async def test_a_device_resumes_exactly_where_it_left(served: Served, by: str) -> None:
    await served.publish("s", *events(*range(5)))
    stream = await served.stream("s")
    await stream.take(3)
    cursor = stream.last_id
    stream.close()
    headers = {"Last-Event-ID": cursor} if by != "query" else {}
    query = {"header": "from=beginning", "query": f"from={cursor}", "both": "from=now"}[by]
    stream = await served.stream("s", query, **headers)
    assert [e["offset"] for e in await stream.take(2)] == [3, 4]
    stream.close()


async def test_from_now_begins_with_the_next_event(served: Served) -> None:
    await served.publish("s", *events(0, 1))
    stream = await served.stream("s", "from=now")
    await served.publish("s", *events(2))
    assert (await stream.next())["data"] == 2
    stream.close()


@on_disk
async def test_a_device_that_was_cut_before_its_first_event_still_misses_nothing(served: Served) -> None:
    await served.publish("s", *events(0))
    stream = await served.stream("s", "from=now")
    identity = (await stream.lines())[-1].removeprefix(b"id: ").decode()
    stream.close()
    await served.publish("s", *events(1))
    stream = await served.stream("s", "from=now", **{"Last-Event-ID": identity})
    assert (await stream.next())["data"] == 1
    stream.close()


@on_disk
async def test_two_devices_see_the_same_bytes_replayed_or_live(served: Served) -> None:
    await served.publish("s", *events(0))
    live = await served.stream("s")
    await live.take(1)
    await served.publish("s", *events({"text": "ü"}, 2.50))
    raw_live = [await live.lines() for _ in range(2)]
    late = await served.stream("s")
    await late.take(1)
    assert [await late.lines() for _ in range(2)] == raw_live
    live.close()
    late.close()


async def test_topics_filter_replay_and_live(served: Served) -> None:
    await served.publish("s", *events(0, topic="a"), *events(1, topic="b"))
    stream = await served.stream("s", "topics=b,c")
    assert (await stream.next())["data"] == 1
    await served.publish("s", *events(2, topic="a"))
    await served.publish("s", *events(3, topic="c"))
    assert (await stream.next())["data"] == 3
    stream.close()
    _, page = await served.call("GET", f"{PATH}?topics=a&limit=1")
    assert ([e["data"] for e in page["events"]], page["up_to_date"]) == ([0], False)


async def test_an_idle_stream_is_kept_alive(serve: Serve) -> None:
    served = await serve(keep_alive=0.05)
    await served.publish("s", *events(0))
    stream = await served.stream("s", "from=now")
    await stream.lines()
    assert await asyncio.wait_for(stream.lines(), 60) == [b":"]
    stream.close()


async def test_pages_follow_each_other_by_cursor(served: Served) -> None:
    await served.publish("s", *events(*range(5)))
    seen: list[int] = []
    cursor = "beginning"
    while True:
        _, page = await served.call("GET", f"{PATH}?from={cursor}&limit=2")
        seen += [e["data"] for e in page["events"]]
        cursor = page["cursor"]
        if page["up_to_date"]:
            break
    assert seen == [0, 1, 2, 3, 4]
    _, page = await served.call("GET", f"{PATH}?from={cursor}")
    assert (page["events"], page["cursor"], page["up_to_date"], page["settled"]) == ([], cursor, True, False)


async def test_a_long_poll_answers_with_the_first_event_or_empty(served: Served) -> None:
    first = await served.publish("s", *events(0))
    # From a cursor: where `now` is depends on when the request arrives.
    asked = asyncio.ensure_future(served.call("GET", f"{PATH}?from={first['epoch']}-1&wait=60"))
    await asyncio.sleep(0.05)
    assert not asked.done()
    await served.publish("s", *events(1))
    _, page = await asyncio.wait_for(asked, 60)
    assert [e["data"] for e in page["events"]] == [1]
    _, page = await served.call("GET", f"{PATH}?from=now&wait=0.1")
    assert page["events"] == []


async def test_a_long_poll_for_a_topic_waits_through_others(served: Served) -> None:
    first = await served.publish("s", *events(0))
    asked = asyncio.ensure_future(served.call("GET", f"{PATH}?from={first['epoch']}-1&wait=60&topics=b"))
    await asyncio.sleep(0.05)
    await served.publish("s", *events(1, topic="a"))
    await asyncio.sleep(0.05)
    assert not asked.done()
    await served.publish("s", *events(2, topic="b"))
    _, page = await asyncio.wait_for(asked, 60)
    assert [e["data"] for e in page["events"]] == [2]


@pytest.mark.parametrize(
    ("cursor", "status", "code"),
    [
        ("garbage", 400, "cursor_invalid"),
        ("-1", 400, "cursor_invalid"),
        ("{epoch}-", 400, "cursor_invalid"),
        ("{epoch}--1", 400, "cursor_invalid"),
        ("{epoch}-01", 400, "cursor_invalid"),
        ("{epoch}-NaN", 400, "cursor_invalid"),
        ("{epoch}-9223372036854775808", 400, "cursor_invalid"),
        ("{epoch}-2", 409, "cursor_ahead"),
        ("{epoch}-999999999999999999", 409, "cursor_ahead"),
        ("aaaaaaaaaa-0", 410, "epoch_changed"),
    ],
)
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_cursor_that_cannot_be_served_is_told(
    served: Served, cursor: str, status: int, code: str, accept: str
) -> None:
    answer = await served.publish("s", *events(0))
    cursor = cursor.format(epoch=answer["epoch"])
    got, body = await served.call("GET", f"{PATH}?from={cursor}", headers={"Accept": accept})
    assert (got, body["error"]["code"]) == (status, code)
    got, body = await served.call("GET", PATH, headers={"Accept": accept, "Last-Event-ID": cursor})
    assert (got, body["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "query",
    ["until=later", "limit=0", "limit=x", "limit=10001", "wait=-1", "wait=61", "wait=nan", "topics=", "topics=a,,b"],
)
async def test_a_bad_parameter_is_refused(served: Served, query: str) -> None:
    await served.publish("s", *events(0))
    status, body = await served.call("GET", f"{PATH}?{query}")
    assert status == 400
    assert body["error"]["code"] in ("request_invalid", "topic_invalid")


async def test_an_unknown_session_is_told(served: Served) -> None:
    for path in (PATH, "/v1/sessions/s"):
        status, body = await served.call("GET", path)
        assert (status, body["error"]["code"]) == (404, "session_not_found")
    status, body = await served.call("GET", PATH, headers={"Accept": "text/event-stream"})
    assert status == 404


async def test_sessions_are_listed_in_pages(served: Served) -> None:
    for name in ("c", "a", "b"):
        await served.publish(name, *events(0))
    _, first = await served.call("GET", "/v1/sessions?limit=2")
    assert ([s["session"] for s in first["sessions"]], first["after"]) == (["a", "b"], "b")
    _, rest = await served.call("GET", f"/v1/sessions?limit=2&after={first['after']}")
    assert ([s["session"] for s in rest["sessions"]], rest["after"]) == (["c"], None)


async def test_the_state_counts_live_devices(served: Served) -> None:
    await served.publish("s", *events(0))
    stream = await served.stream("s")
    await stream.next()
    _, state = await served.call("GET", "/v1/sessions/s")
    assert (state["devices"], state["next_offset"], state["settled"]) == (1, 1, False)
    stream.close()
    async with asyncio.timeout(60):
        while (await served.call("GET", "/v1/sessions/s"))[1]["devices"]:
            await asyncio.sleep(0.01)


async def test_an_http_1_0_client_gets_the_stream_without_chunks(served: Served) -> None:
    await served.publish("s", *events(0))
    host, port = served.url.removeprefix("http://").split(":")
    async with connecting(host, port) as (reader, writer):
        writer.write(f"GET {PATH} HTTP/1.0\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.readuntil(b'"data":0'), 60)).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body.startswith(b": wakeline\nretry: 1000\nid: ")
        await reader.readuntil(b"\n\n")
        await served.publish("s", *events(1))
        assert (await asyncio.wait_for(reader.readuntil(b"\n"), 60)).startswith(b"id: ")


async def test_a_head_request_does_not_hang(served: Served) -> None:
    await served.publish("s", *events(0))
    async with served.http.head(PATH) as answer:
        assert answer.status == 405


@on_disk
async def test_a_slow_device_gets_every_byte_in_order(served: Served) -> None:
    """It reads a little now and then, so the kernel takes parts of chunks, the transport the rest, and the log the most."""
    await served.publish("s", *events(0))
    host, port = served.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, (host, int(port)))
        request = f"GET {PATH} HTTP/1.0\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode()
        await loop.sock_sendall(connection, request)
        received = bytearray()
        chance = random.Random(1)

        async def read_slowly() -> None:
            while b'"data":"the end"' not in received[-40_000:]:
                received.extend(await loop.sock_recv(connection, chance.randint(1, 20_000)))
                await asyncio.sleep(chance.choice((0, 0, 0.001)))

        reading = asyncio.ensure_future(read_slowly())
        for n in range(300):
            sizes = chance.choices((1, 1_000, 60_000), k=chance.randint(1, 3))
            await served.publish("s", *events(*("x" * size for size in sizes)))
            if n % 10 == 0:
                await asyncio.sleep(0.01)
        end = await served.publish("s", *events("the end"))
        await asyncio.wait_for(reading, 60)
    offsets = [int(offset) for offset in re.findall(rb'^data: {"offset":(\d+),', bytes(received), re.MULTILINE)]
    assert offsets == list(range(end["next_offset"]))


@on_disk
async def test_a_device_that_does_not_read_hurts_nobody_and_is_cut_in_time(serve: Serve) -> None:
    served = await serve(write_timeout=0.5, keep_alive=0.1)
    await served.publish("s", *events(0))
    host, port = served.url.removeprefix("http://").split(":")
    async with connecting(host, port, limit=1024) as (reader, writer):
        writer.write(
            f"GET {PATH}?from=beginning HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        await asyncio.wait_for(reader.readuntil(b'"data":0'), 60)
        healthy = await served.stream("s", "from=now")
        for n in range(60):  # more than the sockets of both sides hold
            await served.publish("s", *events("x" * 200_000))
            assert (await healthy.next())["offset"] == n + 1
        async with asyncio.timeout(60):
            while (await served.call("GET", "/v1/sessions/s"))[1]["devices"] != 1:
                await asyncio.sleep(0.05)
        healthy.close()


async def test_one_event_is_read_with_its_publication(served: Served) -> None:
    await served.publish("s", *events(0))
    await served.publish("s", *events(1, 2), publisher="p", attempt="2", sequence="0")
    for offset, publication in ((0, None), (2, {"publisher": "p", "attempt": 2, "sequence": 1})):
        status, answer = await served.call("GET", f"{PATH}/{offset}")
        assert (status, answer["event"]["data"], answer["publication"]) == (200, offset, publication)
    assert await served.call("GET", f"{PATH}/3") == (200, {"event": None, "publication": None})
    for path, expected_status in ((f"{PATH}/x", 400), (f"{PATH}/{1 << 53}", 400), ("/v1/sessions/none/events/0", 404)):
        assert (await served.call("GET", path))[0] == expected_status


async def test_one_event_is_not_shown_beyond_the_topics_of_the_token(serve: Serve) -> None:
    served = await serve(no_auth=False, token_secret=SECRET)
    served.http.headers.update(bearer())
    await served.publish("s", *events(0), *events(1, topic="secret"), publisher="p", sequence="0")
    served.http.headers.update(bearer(topics=["t"]))
    assert (await served.call("GET", f"{PATH}/0"))[1]["publication"]["sequence"] == 0
    assert await served.call("GET", f"{PATH}/1") == (200, {"event": None, "publication": None})
    served.http.headers.update(bearer(allow=["publish"]))
    assert (await served.call("GET", f"{PATH}/0"))[0] == 403
