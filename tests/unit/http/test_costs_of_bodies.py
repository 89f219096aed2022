"""What a body may cost the others: it is read, inflated and parsed within limits, and never holds the loop for long."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import aiohttp
import pytest

from tests.support import Served
from tests.unit.conftest import Serve, on_disk
from tests.unit.http.test_costs import EVENTS, JSON, NDJSON, STREAM, refusal, sent

MESSAGE = 64 * 1024
"""The most characters of a message of `/v1/publish` with several frames."""

GZIP = {**JSON, "Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("identity", bytes),
    ],
)
async def test_a_body_may_be_compressed(served: Served, coding: str, compress: Any) -> None:
    body = compress(json.dumps({"events": [{"topic": "t", "data": "x" * 100_000}]}).encode())
    status, _ = await served.call("POST", EVENTS, data=body, headers={**JSON, "Content-Encoding": coding})
    assert status == 200


@pytest.mark.parametrize("path", [EVENTS, STREAM, "/v1/sessions/t/import", "/v1/nudge", "/v1/runs"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "body",
    [b"not compressed", gzip.compress(b"x" * 1000, mtime=0)[:-12], zlib.compress(b"{}")[:-2], b""],
    ids=["plain", "gzip-cut", "deflate-cut", "empty"],
)
async def test_a_body_in_another_coding_than_its_header_names_is_refused(
    served: Served, path: str, coding: str, body: bytes
) -> None:
    await served.call("PUT", STREAM, headers=JSON)
    kind = NDJSON if path.endswith("import") else JSON
    how = {"data": body, "headers": {**kind, "Content-Encoding": coding}}
    assert await refusal(served, "POST", path, **how) == (400, "encoding_invalid")


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "nonsense"])
async def test_a_coding_that_is_not_known_is_refused(served: Served, coding: str) -> None:
    headers = {**JSON, "Content-Encoding": coding}
    assert await refusal(served, "POST", EVENTS, data=b"{}", headers=headers) == (415, "encoding_unknown")


@pytest.mark.parametrize("path", [EVENTS, STREAM, "/v1/sessions/t/import", "/v1/nudge"])
async def test_a_body_has_at_most_1000_gzip_members(served: Served, path: str) -> None:
    await served.call("PUT", STREAM, headers=JSON)
    kind = {**(NDJSON if path.endswith("import") else JSON), "Content-Encoding": "gzip"}
    body = gzip.compress(b"") * 5_000
    assert await refusal(served, "POST", path, data=body, headers=kind) == (400, "encoding_invalid")


async def test_a_body_of_1000_gzip_members_is_read(served: Served) -> None:
    body = gzip.compress(json.dumps({"events": [{"topic": "t"}]}).encode()) + gzip.compress(b"") * 999
    assert (await served.call("POST", EVENTS, data=body, headers=GZIP))[0] == 200


@pytest.mark.parametrize("path", [EVENTS, STREAM, "/v1/sessions/t/import"])
async def test_a_body_that_inflates_beyond_measure_is_refused(served: Served, path: str) -> None:
    await served.call("PUT", STREAM, headers=JSON)
    body = gzip.compress(b"[" + b"1," * 4_000_000 + b"1]")
    assert len(body) < 20_000
    kind = NDJSON if path.endswith("import") else JSON
    how = {"data": body, "headers": {**kind, "Content-Encoding": "gzip"}}
    assert await refusal(served, "POST", path, **how) == (413, "body_too_large")


async def test_a_body_may_not_inflate_beyond_the_largest(serve: Serve) -> None:
    served = await serve(max_body_bytes=2048)
    body = json.dumps({"events": [{"topic": "t", "data": "x" * 3000}]}).encode()
    assert await refusal(served, "POST", EVENTS, data=body, headers=JSON) == (413, "body_too_large")
    assert await refusal(served, "POST", EVENTS, data=gzip.compress(body), headers=GZIP) == (413, "body_too_large")


# Batches


def batch(count: int) -> str:
    return '{"events":[' + ",".join(['{"topic":"t"}'] * count) + "]}"


@on_disk
async def test_a_batch_has_at_most_10_000_events(served: Served) -> None:
    status, answer = await served.call("POST", EVENTS, data=sent(batch(10_000)), headers=JSON)
    assert (status, answer["next_offset"]) == (200, 10_000)
    for body, kind in (
        (batch(10_001), JSON),
        (batch(570_000), JSON),
        ('{"topic":"t"}\n' * 10_001, NDJSON),
        ('{"topic":"t"}\n' * 580_000, NDJSON),
        ("\n" * 8_000_000, NDJSON),
    ):
        assert await refusal(served, "POST", EVENTS, data=sent(body), headers=kind) == (413, "batch_too_large")
    status, answer = await served.call("GET", "/v1/sessions/s")
    assert answer["next_offset"] == 10_000


async def test_the_most_events_of_a_batch_are_a_setting(serve: Serve) -> None:
    served = await serve(max_batch_events=3)
    assert (await served.call("POST", EVENTS, data=batch(3), headers=JSON))[0] == 200
    assert await refusal(served, "POST", EVENTS, data=batch(4), headers=JSON) == (413, "batch_too_large")
    lines = '{"topic":"t"}\n\n'
    assert (await served.call("POST", EVENTS, data=lines * 3, headers=NDJSON))[0] == 200
    assert await refusal(served, "POST", EVENTS, data=lines * 4, headers=NDJSON) == (413, "batch_too_large")


@on_disk
@pytest.mark.parametrize("count", [10_001, 4_000_000])
async def test_a_stream_accepts_at_most_10_000_messages_at_once(served: Served, count: int) -> None:
    body = "[" + "1," * (count - 1) + "1]"
    assert await refusal(served, "PUT", STREAM, data=sent(body), headers=JSON) == (413, "batch_too_large")
    assert (await served.call("PUT", STREAM, headers=JSON))[0] == 201
    assert await refusal(served, "POST", STREAM, data=sent(body), headers=JSON) == (413, "batch_too_large")
    # One message is one, however much there is in it.
    assert (await served.call("POST", STREAM, data=sent(f"[[{'1,' * 500_000}1]]"), headers=JSON))[0] == 204


async def test_a_channel_accepts_at_most_10_000_events_at_once(served: Served) -> None:
    async with served.http.ws_connect("/v1/publish") as socket:
        await socket.receive(60)
        opening = '{"type":"open","channel":1,"session":"s","publisher":"p"}\n'
        await socket.send_str(opening + '{"type":"append","channel":1,"sequence":0,' + batch(500_000)[1:])
        frames: list[Any] = []
        while not frames or frames[-1]["type"] != "error":
            frames += map(json.loads, (await socket.receive_str(timeout=60)).split("\n"))
    assert (frames[-1]["channel"], frames[-1]["error"]["code"]) == (1, "batch_too_large")


@pytest.mark.parametrize("line", ['{"type":"ping"}', '{"type":"token","token":"a.b.c"}', '{"type":"nonsense"}'])
async def test_a_message_of_small_frames_ends_a_connection(served: Served, line: str) -> None:
    async with served.http.ws_connect("/v1/publish") as socket:
        await socket.send_str(f"{line}\n" * (7_000_000 // len(line)))
        while (message := await socket.receive(60)).type is aiohttp.WSMsgType.TEXT:
            assert len(message.data) <= MESSAGE
    assert message.data in (4429, 4400)


async def test_the_answers_to_a_large_message_come_in_messages_of_64_kib_or_one_frame(served: Served) -> None:
    pings = ["x" * 1_000] * 200 + ["x" * (2 * MESSAGE)]
    answered: list[str] = []
    messages: list[tuple[int, int]] = []
    async with served.http.ws_connect("/v1/publish") as socket:
        await socket.receive(60)
        await socket.send_str("\n".join(f'{{"type":"ping","data":"{data}"}}' for data in pings))
        while len(answered) < len(pings):
            message = await socket.receive_str(timeout=60)
            frames = message.split("\n")
            messages.append((len(frames), len(message)))
            answered += [json.loads(frame)["data"] for frame in frames]
    assert answered == pings
    assert max(size for frames, size in messages if frames > 1) <= MESSAGE
    assert [frames for frames, size in messages if size > MESSAGE] == [1]


async def test_a_message_of_empty_lines_delays_no_other(served: Served) -> None:
    async with served.http.ws_connect("/v1/publish") as socket:
        await socket.send_str("\n" * 8_000_000)
        await socket.send_str('{"type":"ping"}')
        await socket.receive(60)
        assert json.loads((await socket.receive(60)).data)["type"] == "pong"


@on_disk
async def test_line_breaks_in_a_body_cost_nothing(served: Served) -> None:
    data = "[" + ",\n".join(["1"] * 250_000) + "]"
    body = '{"events":[' + ",\n".join([f'{{"topic":"t","data":{data}}}'] * 8) + "]}"
    assert (await served.call("POST", EVENTS, data=sent(body), headers=JSON))[0] == 200


HALF, OTHER = "\\ud83d", "\\ude00"


@pytest.mark.parametrize("halves", [HALF, HALF + OTHER, "\\\\"])
async def test_half_an_emoji_in_a_large_body_delays_no_other(served: Served, halves: str) -> None:
    count = 900_000 // len(halves)
    event = '{"topic":"t","data":"' + halves * count + HALF + '"}'
    small = '{"topic":"t","data":"' + halves * (600 // len(halves)) + HALF + '"}'
    for path, body, kind in (
        (EVENTS, '{"events":[' + ",".join([event] * 8) + "]}", JSON),
        (EVENTS, "\n".join([event] * 8), NDJSON),
        (EVENTS, "\n".join([small] * 10_000), NDJSON),
    ):
        status, answer = await served.call("POST", path, data=sent(body), headers=kind)
        assert status == 200, answer
    await served.call("PUT", STREAM + "tream", headers=JSON)
    body = "[" + ",".join([event[20:-1]] * 8) + "]"
    status, _ = await served.call("POST", STREAM + "tream", data=sent(body), headers=JSON)
    assert status == 204
    async with served.http.ws_connect("/v1/publish") as socket:
        await socket.receive(60)
        await socket.send_str('{"type":"open","channel":1,"session":"w","publisher":"p"}')
        batch_ = '{"type":"append","channel":1,"sequence":0,"events":[' + ",".join([event] * 7) + "]}"
        await socket.send_str(batch_)
        frames: list[Any] = []
        while len(frames) < 2:
            frames += map(json.loads, (await socket.receive_str(timeout=60)).split("\n"))
    assert [frame["type"] for frame in frames] == ["opened", "appended"], frames


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("POST", "/v1/runs", "workflow_id"),
        ("POST", "/v1/nudge", "workflow_id"),
        ("PUT", "/v1/sessions/s/devices/d", "seen"),
        ("PUT", "/v1/sessions/s/publishers/p", "run"),
        ("PUT", "/v1/sessions/s", "retention"),
    ],
)
async def test_a_body_without_events_is_small(served: Served, method: str, path: str, field: str) -> None:
    body = json.dumps({field: "x" * 7_000_000})
    assert await refusal(served, method, path, data=sent(body), headers=JSON) == (413, "body_too_large")
