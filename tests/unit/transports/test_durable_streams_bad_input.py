"""Each bad request to a stream, and its exact answer."""

from __future__ import annotations

import pytest

from tests.durable import BYTES, CLOSED, JSON, TEXT, Durable
from tests.support import Served
from tests.unit.conftest import Serve

INVALID, BODY, CURSOR = (400, "request_invalid"), (400, "body_invalid"), (400, "request_invalid")
PRODUCER = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Stream-TTL": "1", "Stream-Expires-At": "2099-01-01T00:00:00Z"},
        *[{"Stream-TTL": ttl} for ttl in ("", "-1", "+1", "01", "1.0", "1e3", "1 0", "0x1", "٣", "9" * 30, "abc")],
        *[
            {"Stream-Expires-At": moment}
            for moment in ("", "tomorrow", "2099-01-01", "2099-01-01T00:00:00", "1767225600", "2001-01-01T00:00:00Z")
        ],
        *[
            {"Content-Type": text}
            for text in ("text", "text/", "/plain", "text/plain/x", "te xt/plain", "x" * 300 + "/y")
        ],
    ],
    ids=str,
)
async def test_a_creation_that_is_not_understood(served: Served, headers: dict[str, str]) -> None:
    stream = Durable(served)
    assert (await stream.put({**JSON, **headers})).error == INVALID
    assert (await stream.head()).status == 404


@pytest.mark.parametrize("closed", ["false", "yes", "1", ""])
async def test_other_values_of_closed_say_nothing(served: Served, closed: str) -> None:
    stream = Durable(served)
    assert "Stream-Closed" not in (await stream.put(**{"Stream-Closed": closed})).headers
    assert (await stream.post([1], **{"Stream-Closed": closed})).status == 204
    assert (await stream.post(None, **{"Stream-Closed": closed})).error == INVALID


@pytest.mark.parametrize(
    "headers",
    [
        *[{name: value for name, value in PRODUCER.items() if name != left_out} for left_out in PRODUCER],
        *[{name: PRODUCER[name]} for name in PRODUCER],
        *[{**PRODUCER, "Producer-Id": name} for name in ("", "x" * 201, "é", "a\tb")],
        *[
            {**PRODUCER, "Producer-Epoch": text}
            for text in ("", "-1", "1.0", "1e3", "0x0", "01", str(2**53), "9" * 400)
        ],
        *[{**PRODUCER, "Producer-Seq": text} for text in ("", "-1", "1abc", "٣", str(2**53))],
        *[{"Stream-Seq": text} for text in ("", "é", "x" * 257)],
        {"Content-Type": ""},
        {"Content-Type": "json"},
    ],
    ids=str,
)
async def test_an_append_that_is_not_understood(served: Served, headers: dict[str, str]) -> None:
    stream = Durable(served)
    await stream.put()
    assert (await stream.post([1], {**JSON, **headers})).error == INVALID
    assert (await stream.get()).json == []


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b" [ ] ",
        b"[1,",
        b"[1,]",
        b"{'a':1}",
        b"NaN",
        b"1 2",
        b'"\xff"',
        b"\xef\xbb\xbf1",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\0",
        b" ",
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_a_body_that_is_no_message(served: Served, body: bytes) -> None:
    stream = Durable(served)
    await stream.put()
    assert (await stream.post(body)).error == BODY
    assert (await stream.post(body, **PRODUCER)).error == BODY
    assert (await stream.get()).json == []
    assert (await stream.post(body, **CLOSED)).error == BODY
    assert "Stream-Closed" not in (await stream.head()).headers
    # A stream may begin with no message, though.
    created = await Durable(served, "other").put(JSON, body)
    assert created.status == 201 if body in (b"[]", b" [ ] ") else created.error == BODY


async def test_a_body_that_is_too_long(serve: Serve) -> None:
    served = await serve(max_event_bytes=1024, max_body_bytes=8192)
    stream = Durable(served)
    await stream.put()
    assert (await stream.post(["x" * 1100])).error == (413, "event_too_large")
    assert (await stream.post([1, "x" * 1100])).error == (413, "event_too_large")
    assert (await stream.post(["x" * 1000] * 9)).error == (413, "body_too_large")
    assert (await stream.get()).json == []
    assert (await stream.post(["x" * 1022])).status == 204


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
@pytest.mark.parametrize(
    "offset",
    [
        "",
        "0",
        "-2",
        "NOW",
        "0,1",
        "0%201",
        "..%2F",
        "%00",
        "-1%0A",
        "0000000000000000_0000000000000000",
        "{epoch}-1",
        "{epoch}-00000000000000001",
        "{epoch}-0000000000000002",
        "{epoch}-9999999999999999",
        "{epoch}-%D9%A30000000000000000"[:40],
        "A{epoch}-0000000000000000",
        "x" * 5000,
    ],
)
async def test_an_offset_that_is_none(served: Served, offset: str, live: str) -> None:
    stream = Durable(served)
    epoch = (await stream.put(JSON, [1])).next.partition("-")[0]
    assert (await stream.get(f"?offset={offset.format(epoch=epoch)}{live}")).error == CURSOR


@pytest.mark.parametrize(
    "query",
    [
        "?live=long-poll",
        "?live=sse",
        "?offset=-1&live=websocket",
        "?offset=-1&live=",
        "?offset=-1&offset=-1",
        "?offset=-1&live=sse&live=sse",
        "?offset=-1&live=long-poll&cursor=x",
        "?offset=-1&live=long-poll&cursor=-1",
        "?offset=-1&live=sse&cursor=1&cursor=2",
        "?offset=-1&live=sse&cursor=" + "9" * 100,
    ],
)
async def test_a_read_that_is_not_understood(served: Served, query: str) -> None:
    stream = Durable(served)
    await stream.put()
    assert (await stream.get(query)).error == INVALID


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "DELETE"])
async def test_a_stream_that_is_not_there(served: Served, method: str) -> None:
    answer = await Durable(served).call(method, "", [1] if method == "POST" else None, **JSON)
    assert answer.status == 404
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if method != "HEAD":
        assert answer.error == (404, "session_not_found")


@pytest.mark.parametrize("name", ["%00", "a%0Ab", "%E2%80%A8", "x" * 513, "%C2%85"])
async def test_a_name_that_no_session_may_have(served: Served, name: str) -> None:
    assert (await Durable(served, name).put()).error == (400, "session_name_invalid")


@pytest.mark.parametrize("name", ["", "a%01"])
async def test_a_draft_cannot_be_asked_for(served: Served, name: str) -> None:
    answer = await Durable(served, f"%01{name}").get()
    assert answer.error == (400, "session_name_invalid")


async def test_which_refusal_comes_first(served: Served) -> None:
    stream = Durable(served)
    await stream.put(JSON, [1])
    await stream.post([2], **{"Stream-Seq": "b"})
    # Of an open stream: the content type, the body, the order.
    assert (await stream.post(b"[", TEXT, **{"Stream-Seq": "a"})).error == (409, "stream_conflict")
    assert (await stream.post(b"[", **{"Stream-Seq": "a"})).error == BODY
    assert (await stream.post([3], **{"Stream-Seq": "a"})).error == (409, "stream_conflict")
    end = (await stream.post(None, **CLOSED)).next
    # Of a closed one: that it is closed.
    for answer in (
        await stream.post(b"[", TEXT, **{"Stream-Seq": "a"}),
        await stream.post([3]),
        await stream.post([3], **CLOSED),
        await stream.post([3], **PRODUCER),
    ):
        assert answer.error == (409, "session_closed")
        assert (answer.headers["Stream-Closed"], answer.next) == ("true", end)
    assert (await stream.post(None, TEXT, **CLOSED)).status == 204


async def test_a_stream_that_is_another(served: Served) -> None:
    stream = Durable(served)
    await stream.put(JSON, **{"Stream-TTL": "60"})
    for headers in (
        JSON,
        {**JSON, "Stream-TTL": "61"},
        {**JSON, "Stream-Expires-At": "2099-01-01T00:00:00Z"},
        {**BYTES, "Stream-TTL": "60"},
        {**JSON, "Stream-TTL": "60", **CLOSED},
    ):
        assert (await stream.put(headers)).error == (409, "stream_conflict")
    same = {"Content-Type": "APPLICATION/JSON; charset=utf-8", "Stream-TTL": "60"}
    assert (await stream.put(same)).status == 200


async def test_a_page_that_somebody_wrote_runs_nothing(served: Served) -> None:
    stream = Durable(served)
    await stream.put({"Content-Type": "text/html"}, b"<script>alert(1)</script>")
    answer = await stream.get()
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_other_methods(served: Served) -> None:
    assert (await Durable(served).call("PATCH")).error == (405, "method_not_allowed")
