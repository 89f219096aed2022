"""What no client of ours sends, over the feed's WebSocket: each with its exact answer, and none disturbs the next one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.connecting import connecting
from tests.feeds import BINARY, CLOSE, PING, PONG, TEXT, feed, frame, handshake, raw
from tests.support import Served
from tests.unit.conftest import Serve

LIMIT = 64 * 1024


async def put(served: Served) -> str:
    answer = await served.publish("s", {"topic": "t", "data": 0})
    epoch: str = answer["epoch"]
    return epoch


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", b"{", b"[]", b'"subscribe"', b"null", b"{}", b'{"type":1}', b'{"type":null}', b'{"type":"bogus"}',
     b'{"type":"events"}', b'{"type":"subscribe","type":"bogus"}', b'{"type":"ping"}x', b'\xef\xbb\xbf{"type":"ping"}',
     b'{"type":"ping","data":NaN}', b"[" * 60_000, b'{"type":' + b"[" * 60_000,
     b'{"type":"ping","data":' + b"[" * 60_000, b'{"type":"\\ud800"}'],
    ids=lambda payload: repr(payload[:40]),
)  # fmt: skip
async def test_what_is_no_frame_of_the_protocol_closes_with_4400(served: Served, payload: bytes) -> None:
    async with raw(served.url) as client:
        client.send(payload)
        code, reason = await client.closed()
    assert code == 4400
    assert reason.startswith("expected ")


async def test_a_binary_frame_closes_with_4400(served: Served) -> None:
    async with raw(served.url) as client:
        client.send(b'{"type":"ping"}', BINARY)
        assert await client.closed() == (4400, "expected a text frame, got a binary one")


@pytest.mark.parametrize("payload", [b'{"type":"ping","data":"\xff"}', b"\xc0\x80", b"\xed\xa0\x80"])
async def test_what_is_not_utf_8_closes_with_1007(served: Served, payload: bytes) -> None:
    async with raw(served.url) as client:
        client.send(payload)
        assert (await client.closed())[0] == 1007


async def test_a_frame_over_64_kib_closes_with_1009_and_one_of_64_is_taken(served: Served) -> None:
    fitting = json.dumps({"type": "ping", "data": ""}).encode()
    fitting = fitting[:-2] + b"x" * (LIMIT - len(fitting)) + fitting[-2:]
    async with raw(served.url, limit=1 << 20) as client:
        client.send(fitting)
        kind, payload = await client.next()
        assert (kind, len(payload)) == (TEXT, LIMIT - 3)  # without the white space between tokens
        client.send(fitting + b" ")
        assert (await client.closed())[0] == 1009


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
async def test_a_frame_that_says_it_is_too_large_is_refused_before_it_comes(served: Served, size: int) -> None:
    async with raw(served.url) as client:
        client.writer.write(b"\x81\xff" + size.to_bytes(8) + b"\0\0\0\0")
        assert (await client.closed())[0] == 1009


async def test_fragments_are_put_together_up_to_the_limit(served: Served) -> None:
    async with raw(served.url) as client:
        for n, piece in enumerate((b'{"type":', b"", b'"ping","data', b'":1}')):
            client.send(piece, TEXT if n == 0 else 0, fin=n == 3)
            if n < 3:
                client.send(b"between", PING)
                assert await client.next() == (PONG, b"between")
        assert await client.next_json() == {"type": "pong", "data": 1}
        client.send(b"x" * 40_000, fin=False)
        client.send(b"x" * 40_000, 0)
        assert (await client.closed())[0] == 1009


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(b"x", 0), id="goes on with nothing"),
        pytest.param(frame(b"x", fin=False) + frame(b"y"), id="begins anew before the end"),
        pytest.param(frame(b"x", 3), id="a reserved kind"),
        pytest.param(frame(b"x", PING, fin=False), id="a control frame in pieces"),
        pytest.param(frame(b"x" * 126, PING), id="a control frame that is too long"),
        pytest.param(b"\xc1\x80\0\0\0\0", id="compressed, which was not agreed on"),
        pytest.param(frame(b"\x03", CLOSE), id="half a close code"),
        pytest.param(frame((1005).to_bytes(2), CLOSE), id="a close code that nobody may send"),
    ],
)
async def test_what_is_no_websocket_closes_with_1002(served: Served, data: bytes) -> None:
    async with raw(served.url) as client:
        client.writer.write(data)
        assert (await client.closed())[0] == 1002


async def test_a_frame_without_a_mask_is_read_as_one_with(served: Served) -> None:
    async with raw(served.url) as client:
        client.send(b'{"type":"ping"}', mask=False)
        assert await client.next_json() == {"type": "pong", "data": None}


@pytest.mark.parametrize("sent", [b'{"type":"ping","data":1}', b'{"type":"unsubscribe","session":"none"}', b""])
async def test_a_flood_closes_with_4429(served: Served, sent: bytes) -> None:
    """Ten thousand frames at once: 2,000 are answered, and who sent them does not hold up anybody else."""
    await put(served)
    async with feed(served) as other, raw(served.url, limit=1 << 20) as client:
        await other.subscribe("s")
        flood = frame(sent, TEXT if sent else PING) * 10_000
        client.writer.write(flood)
        answers = 0
        while (got := await client.next())[0] != CLOSE:
            answers += 1
        assert int.from_bytes(got[1][:2]) == 4429
        assert 2000 <= answers < 2200  # a hundred more for each second that it took
        await other.events(1)
        await other.send("ping")
        await other.next("pong")


async def test_a_flood_of_subscriptions_is_held_to_the_limit(served: Served) -> None:
    await put(served)
    async with raw(served.url, limit=1 << 20) as client:
        client.writer.write(b"".join(frame(b'{"type":"subscribe","session":"none-%d"}' % n) for n in range(1500)))
        for _ in range(1500):
            answer = await client.next_json()
            assert answer["type"] == "error"
            assert answer["error"]["code"] in ("session_not_found", "limit_reached")
        client.send_json({"type": "subscribe", "session": "s"})
        assert (await client.next_json())["type"] == "subscribed"


@pytest.mark.parametrize(
    ("sent", "code", "session"),
    [
        ({"type": "subscribe"}, "request_invalid", None),
        ({"type": "subscribe", "session": 1}, "request_invalid", None),
        ({"type": "subscribe", "session": "s", "topic": ["a"]}, "request_invalid", None),
        ({"type": "subscribe", "session": "s", "topics": []}, "request_invalid", None),
        ({"type": "subscribe", "session": "s", "topics": "a"}, "request_invalid", None),
        ({"type": "subscribe", "session": "s", "until": "later"}, "request_invalid", None),
        ({"type": "subscribe", "session": "s", "topics": ["a,b"]}, "topic_invalid", "s"),
        ({"type": "subscribe", "session": "s", "topics": ["a\n"]}, "topic_invalid", "s"),
        ({"type": "subscribe", "session": "s", "topics": [""]}, "topic_invalid", "s"),
        ({"type": "subscribe", "session": "s", "from": "garbage"}, "cursor_invalid", "s"),
        ({"type": "subscribe", "session": "s", "from": "{epoch}--1"}, "cursor_invalid", "s"),
        ({"type": "subscribe", "session": "s", "from": "{epoch}-9223372036854775808"}, "cursor_invalid", "s"),
        ({"type": "subscribe", "session": "s", "from": "{epoch}-2"}, "cursor_ahead", "s"),
        ({"type": "subscribe", "session": "s", "from": "aaaaaaaaaa-0"}, "epoch_changed", "s"),
        ({"type": "subscribe", "session": "s", "from": "tail:x"}, "request_invalid", "s"),
        ({"type": "subscribe", "session": "s", "from": "time:noon"}, "request_invalid", "s"),
        ({"type": "subscribe", "session": ""}, "session_name_invalid", ""),
        ({"type": "subscribe", "session": "a\0b"}, "session_name_invalid", "a\0b"),
        ({"type": "subscribe", "session": "a\u2028b"}, "session_name_invalid", "a\u2028b"),
        ({"type": "subscribe", "session": "x" * 513}, "session_name_invalid", "x" * 513),
        ({"type": "subscribe", "session": "../s"}, "session_not_found", "../s"),
        ({"type": "unsubscribe", "session": "s"}, "request_invalid", "s"),
        ({"type": "ack", "session": "s", "seen": "garbage"}, "cursor_invalid", "s"),
        ({"type": "ack", "session": "s", "seen": "{epoch}-2"}, "cursor_ahead", "s"),
        ({"type": "ack", "session": "s", "seen": "aaaaaaaaaa-0"}, "epoch_changed", "s"),
        ({"type": "ack", "session": "none", "seen": "{epoch}-1"}, "session_not_found", "none"),
        ({"type": "ack", "session": "s", "seen": 1}, "request_invalid", None),
        ({"type": "token"}, "request_invalid", None),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_a_frame_that_cannot_be_served_is_told_and_the_connection_goes_on(
    served: Served, sent: dict[str, Any], code: str, session: str | None
) -> None:
    epoch = await put(served)
    text = json.dumps(sent).replace("{epoch}", epoch)
    async with feed(served, "?device=phone") as client:
        await client.socket.send_str(text)
        answer = await client.next("error")
        assert (answer["error"]["code"], answer.get("session")) == (code, session)
        assert set(answer["error"]) >= {"code", "message", "hint"}
        await client.send("ping")
        await client.next("pong")


async def test_a_session_is_subscribed_once(served: Served) -> None:
    await put(served)
    async with feed(served) as client:
        await client.subscribe("s")
        await client.events(1)
        await client.send("subscribe", "s")
        assert await client.error() == "request_invalid"
        await served.publish("s", {"topic": "t", "data": 1})
        await client.events(1)  # the first one goes on


async def test_the_last_of_duplicate_keys_counts_but_a_frame_has_one_type(served: Served) -> None:
    await put(served)
    async with raw(served.url) as client:
        client.send(b'{"type":"subscribe","type":"subscribe","session":"none","session":"s"}')
        assert (await client.next_json())["session"] == "s"
        client.send(b'{"type":"bogus","type":"ping"}')
        while (answer := await client.next_json())["type"] == "events":
            continue
        assert answer["error"]["code"] == "request_invalid"


async def test_half_a_surrogate_pair_is_replaced(served: Served) -> None:
    async with raw(served.url) as client:
        client.send(rb'{"type":"ping","data":"\ud800"}')
        assert await client.next_json() == {"type": "pong", "data": "\ufffd"}


async def test_numbers_are_handed_back_as_they_came(served: Served) -> None:
    async with raw(served.url) as client:
        client.send(b'{"type":"ping","data":[1e400, 123456789012345678901234567890, 1.0]}')
        assert await client.next() == (
            TEXT,
            b'{"type":"pong","data":[1e400, 123456789012345678901234567890, 1.0]}',
        )


@pytest.mark.parametrize("query", ["?device=", "?device=a%20b", "?device=%C3%A9", f"?device={'x' * 129}"])
async def test_a_device_s_id_is_checked_at_the_handshake(served: Served, query: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with feed(served, query):
            pass
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "changed",
    [
        {"Sec_WebSocket_Version": "12"},
        {"Sec_WebSocket_Key": "short"},
        {"Sec_WebSocket_Key": ""},
        {"Connection": "close"},
    ],
)
async def test_a_handshake_that_is_none_is_answered_with_400(served: Served, changed: dict[str, str]) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    async with connecting(host, port) as (reader, writer):
        writer.write(handshake(host, **changed))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null"])
async def test_a_page_of_elsewhere_cannot_open_it(served: Served, origin: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with feed(served, headers={"Origin": origin}):
            pass
    assert refusal.value.status == 403


async def test_a_page_that_was_named_can(serve: Serve) -> None:
    served = await serve(cors_origins=("https://app.example",))
    async with feed(served, headers={"Origin": "https://app.example"}) as client:
        await client.send("ping")
        await client.next("pong")


async def test_a_reset_in_the_middle_of_a_frame_leaves_nothing_behind(served: Served) -> None:
    await put(served)
    for cut in (1, 3, 7, 20):
        async with raw(served.url) as client:
            client.send_json({"type": "subscribe", "session": "s"})
            await client.next_json()
            client.writer.write(frame(b'{"type":"ping","data":"x"}')[:cut])
            await client.writer.drain()
            client.reset()
    async with asyncio.timeout(60):
        while (await served.call("GET", "/v1/sessions/s"))[1]["devices"]:
            await asyncio.sleep(0.01)


async def test_a_feed_tells_that_the_gateway_runs_without_temporal(served: Served) -> None:
    async with served.http.ws_connect("/v1/feed") as socket:
        await socket.send_json({"type": "subscribe", "session": "order-1"})
        while (frame := await socket.receive_json(timeout=60))["type"] != "error":
            pass
        told = frame["error"]
    assert told["code"] == "session_not_found"
    assert "runs without Temporal" in told["hint"]
