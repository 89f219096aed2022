"""Sessions are created, closed, erased, exported and imported over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.connecting import connecting
from tests.support import TIME, Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve, on_disk, on_disk_and_shared
from wakeline.events import compose
from wakeline.gateway.delivery import Incoming

TWO_GATEWAYS = True

NDJSON = {"Content-Type": "application/x-ndjson"}
ROUTES = [("PUT", ""), ("DELETE", ""), ("POST", "/close"), ("GET", "/export"), ("POST", "/import")]


async def exported(served: Served, session: str) -> bytes:
    async with served.http.get(f"/v1/sessions/{session}/export") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/x-ndjson"
        return await answer.read()


async def imported(served: Served, session: str, file: bytes) -> tuple[int, Any]:
    return await served.call("POST", f"/v1/sessions/{session}/import", data=file, headers=NDJSON)


async def fill(served: Served, count: int, headers: dict[str, str] | None = None) -> None:
    """Large events, so that a file of them fits into no buffer on its way."""
    for _ in range(0, count, 15):
        events = [{"topic": "t", "data": "x" * 50_000}] * 15
        status, _ = await served.call("POST", "/v1/sessions/a/events", json={"events": events}, headers=headers)
        assert status == 200


async def test_a_session_is_created_and_its_retention_changed(served: Served) -> None:
    path = "/v1/sessions/a"
    status, made = await served.call("PUT", path, json={"retention": {"events": 10}})
    assert (status, made["retention"], made["first_offset"], made["next_offset"]) == (201, {"events": 10}, 0, 0)
    assert made["closed"] is made["settled"] is False
    assert await served.call("GET", path) == (200, made)
    assert await served.call("PUT", path, json={}) == (200, made)
    assert await served.call("PUT", path) == (200, made)
    status, changed = await served.call("PUT", path, json={"retention": {"age": 2.5, "bytes": 7}})
    assert (status, changed["retention"], changed["epoch"]) == (200, {"age": 2.5, "bytes": 7}, made["epoch"])
    assert await served.call("PUT", path, json={"retention": None}) == (200, {**made, "retention": {}})
    assert (await served.publish("a", {"topic": "t"}))["first_offset"] == 0


async def test_what_the_settings_keep_is_kept_of_a_session_that_says_nothing_else(serve: Serve) -> None:
    served = await serve(retention_age=60.0, retention_events=5)
    for session, given, kept in (
        ("a", None, {"age": 60.0, "events": 5}),
        ("b", {"events": 1}, {"events": 1}),
        ("c", {}, {}),
    ):
        _, made = await served.call("PUT", f"/v1/sessions/{session}", json={"retention": given})
        assert made["retention"] == kept


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"retention": 5}',
        b'{"other": 1}',
        b'{"retention": {"age": 0}}',
        b'{"retention": {"age": -1}}',
        b'{"retention": {"events": 0}}',
        b'{"retention": {"events": 1.5}}',
        b'{"retention": {"bytes": "1"}}',
        b'{"retention": {"count": 1}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_a_retention_that_is_none_is_refused(served: Served, body: bytes) -> None:
    status, answer = await served.call("PUT", "/v1/sessions/a", data=body)
    assert (status, answer["error"]["code"]) == (400, "body_invalid")
    assert (await served.call("GET", "/v1/sessions/a"))[0] == 404


async def test_a_session_is_closed_once(served: Served) -> None:
    assert (await served.call("POST", "/v1/sessions/a/close"))[1]["error"]["code"] == "session_not_found"
    await served.publish("a", {"topic": "t", "data": 1})
    live = await served.stream("a")
    assert (await live.next())["data"] == 1
    status, closed = await served.call("POST", "/v1/sessions/a/close")
    assert (status, closed["closed"], closed["next_offset"]) == (200, True, 2)
    assert await served.call("POST", "/v1/sessions/a/close") == (200, {**closed, "devices": 0})
    (last,) = await live.rest()
    assert (last["topic"], last["data"], last["offset"]) == ("$session.closed", {}, 1)
    status, refused = await served.call("POST", "/v1/sessions/a/events", json={"events": [{"topic": "t"}]})
    assert (status, refused["error"]["code"]) == (409, "session_closed")
    # Who comes later has it all, to its end; who has it all already is told to stop.
    assert [e["offset"] for e in await (await served.stream("a")).rest()] == [0, 1]
    async with served.http.get(
        "/v1/sessions/a/events", headers={"Accept": "text/event-stream", "Last-Event-ID": live.last_id}
    ) as answer:
        assert answer.status == 204


@on_disk_and_shared
async def test_a_deleted_session_is_gone_for_everybody(served: Served) -> None:
    first = await served.publish("a", {"topic": "t"}, publisher="p", sequence="0")
    live, page = await served.stream("a"), f"/v1/sessions/a/events?from={first['epoch']}-1&wait=10"
    await live.next()
    waiting = asyncio.ensure_future(served.call("GET", page))
    seen = {"seen": f"{first['epoch']}-1"}
    assert (await served.call("PUT", "/v1/sessions/a/devices/phone", json=seen))[0] == 200
    await asyncio.sleep(0.05)
    assert await served.call("DELETE", "/v1/sessions/a") == (204, None)
    assert await live.rest() == []
    status, answer = await asyncio.wait_for(waiting, 60)
    assert status == 404 or (status, answer["events"]) == (200, [])
    assert (await served.call("GET", "/v1/sessions/a"))[0] == 404
    assert (await served.call("DELETE", "/v1/sessions/a"))[0] == 404
    again = await served.publish("a", {"topic": "t"}, publisher="p", sequence="0")
    assert (again["first_offset"], again["duplicate"]) == (0, False)
    assert again["epoch"] != first["epoch"]
    assert await served.call("GET", "/v1/sessions/a/devices") == (200, {"devices": []})
    status, answer = await served.call("GET", f"/v1/sessions/a/events?from={first['epoch']}-1")
    assert (status, answer["error"]["code"]) == (410, "epoch_changed")


async def test_an_export_is_the_session_line_by_line(served: Served) -> None:
    events = [{"topic": "t", "data": {"n": n, "text": "Grüße \u2028" * (n % 20)}} for n in range(1500)]
    for start in range(0, 1500, 300):
        await served.publish("a", *events[start : start + 300])
    await served.publish("a", {"topic": "u", "run": "r", "activity": "act", "data": 1e300}, publisher="p", sequence="0")
    await served.call("PUT", "/v1/sessions/a", json={"retention": {"events": 9000}})
    await served.call("POST", "/v1/sessions/a/close")
    _, state = await served.call("GET", "/v1/sessions/a")
    file = await exported(served, "a")
    first, *lines, last, nothing = file.split(b"\n")
    assert json.loads(first) == {
        "wakeline_export": 1,
        "session": "a",
        "epoch": state["epoch"],
        "first_offset": 0,
        "next_offset": 1502,
        "created": state["created"],
        "closed": True,
        "retention": {"events": 9000},
        "runs": [],
    }
    assert (json.loads(last), nothing) == ({"wakeline_export_end": 1502}, b"")
    raw: list[bytes] = []
    cursor = "beginning"
    while cursor != f"{state['epoch']}-1502":
        async with served.http.get("/v1/sessions/a/events", params={"from": cursor}) as answer:
            body = await answer.read()
            raw.append(body[body.index(b"[") + 1 : body.rindex(b"]")])
            cursor = json.loads(body)["cursor"]
    assert b",".join(lines) == b",".join(raw)


async def test_an_http_1_0_client_sees_where_an_export_ends(served: Served) -> None:
    await fill(served, 1)
    host, port = served.url.removeprefix("http://").split(":")
    async with connecting(host, port) as (reader, writer):
        writer.write(f"GET /v1/sessions/a/export HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 60)
        assert b"keep-alive" not in answer.partition(b"\r\n\r\n")[0]
        assert b'{"wakeline_export_end":' in answer[-40:]


@on_disk_and_shared
async def test_an_import_is_the_session_that_was_exported(served: Served) -> None:
    payload = compose("p", b'{"metadata": {"encoding": "YmluYXJ5"}, "data": "AAE="}', time=TIME, payload=True)
    await served.publish("a", {"topic": "t", "data": "Grüße \u2028"}, {"topic": "t", "run": "r", "activity": "x"})
    file = await exported(served, "a")
    head, one, two, _ = file.split(b"\n", 3)
    third = b'{"offset":2,' + payload.body
    header = {**json.loads(head), "next_offset": 3, "closed": True, "retention": {"age": 86400.0}}
    file = b"\n".join([json.dumps(header).encode(), one, two, third, b'{"wakeline_export_end":3}', b""])
    status, made = await imported(served, "b", file)
    assert status == 201
    assert (made["session"], made["first_offset"], made["next_offset"], made["closed"]) == ("b", 0, 3, True)
    assert made["epoch"] != header["epoch"]
    assert made["retention"] == {"age": 86400.0}
    assert (await exported(served, "b")).split(b"\n")[1:4] == [one, two, third]
    assert await imported(served, "b", file) == (
        409,
        {
            "error": {
                "code": "session_exists",
                "message": "there is a session 'b' already",
                "hint": "Delete it first, or take another name.",
            }
        },
    )


@on_disk_and_shared
async def test_an_import_keeps_offsets_and_goes_on_behind_them(served: Served) -> None:
    header = {"wakeline_export": 1, "session": "a", "epoch": "e", "first_offset": 5, "next_offset": 7, "created": TIME}
    lines = [
        {**header, "closed": False, "retention": None, "runs": []},
        *({"offset": n, "topic": "t", "data": n, "time": TIME} for n in (5, 6)),
        {"wakeline_export_end": 7},
    ]
    file = b"\r\n\n".join(json.dumps(line).encode() for line in lines[:-1]) + b'\n{"wakeline_export_end":7}'
    status, made = await imported(served, "a", file)
    assert (status, made["first_offset"], made["next_offset"], made["retention"]) == (201, 5, 7, {})
    assert (await served.publish("a", {"topic": "t"}))["first_offset"] == 7
    _, page = await served.call("GET", "/v1/sessions/a/events")
    assert [e["offset"] for e in page["events"] if e["topic"] != "$gap"] == [5, 6, 7]


async def test_imported_runs_are_shown_as_they_stood_and_none_is_open(served: Served) -> None:
    run = {"workflow_id": "w", "run_id": "i", "stream": "i", "workflow_type": "W", "started_at": TIME}
    runs = [{**run, "run": "1", "status": "failed"}, {**run, "run": "2", "status": "running"}]
    header = {"wakeline_export": 1, "session": "a", "epoch": "e", "first_offset": 0, "next_offset": 0, "created": TIME}
    file = (
        json.dumps({**header, "closed": False, "retention": None, "runs": runs}).encode()
        + b'\n{"wakeline_export_end":0}\n'
    )
    status, made = await imported(served, "a", file)
    assert (status, made["settled"]) == (201, True)
    assert [(r["run"], r["status"], r["followed"]) for r in made["runs"]] == [
        ("1", "failed", False),
        ("2", "unknown", False),
    ]
    again = json.loads((await exported(served, "a")).split(b"\n")[0])["runs"]
    assert all(kept | run == kept for kept, run in zip(again, [runs[0], {**runs[1], "status": "unknown"}], strict=True))


def event(n: int, **fields: Any) -> str:
    return json.dumps({"offset": n, "topic": "t", "data": n, "time": TIME} | fields)


HEADER = json.dumps(
    {
        "wakeline_export": 1,
        "session": "a",
        "epoch": "e",
        "first_offset": 0,
        "next_offset": 2,
        "created": TIME,
        "closed": False,
        "retention": None,
        "runs": [],
    }
)
END = '{"wakeline_export_end":2}'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1"),
        (["no JSON"], "line 1"),
        ([event(0), event(1), END], "line 1"),
        ([HEADER.replace('export": 1', 'export": 2'), event(0), event(1), END], "line 1"),
        ([HEADER.replace('first_offset": 0', 'first_offset": 3'), END], "first_offset up to 2"),
        ([HEADER.replace('"runs": []', '"runs": [5]'), event(0), event(1), END], "line 1"),
        ([HEADER.replace("null", '{"age": 0}'), event(0), event(1), END], "line 1"),
        ([HEADER], "cut short at line 1"),
        ([HEADER, event(0), event(1)], "cut short at line 3"),
        ([HEADER, event(0), END], "they end at 1"),
        ([HEADER, event(0), event(1), event(2), END], "they end at 3"),
        ([HEADER, event(0), event(1), '{"wakeline_export_end":3}'], "line 4 says 3"),
        ([HEADER, event(0), event(1), '{"wakeline_export_end":"2"}'], "line 4"),
        ([HEADER, event(0), event(1), END, event(2)], "line 5"),
        ([HEADER, event(0), event(2), END], "expected offset 1 in line 3, got 2"),
        ([HEADER, event(1), event(0), END], "expected offset 0 in line 2, got 1"),
        ([HEADER, event(0), event(0), END], "expected offset 1 in line 3, got 0"),
        ([HEADER, event(0), "{", END], "line 3"),
        ([HEADER, event(0), event(1, more=1), END], "line 3"),
        ([HEADER, event(0), event(1, payload={}), END], "line 3"),
        ([HEADER, event(0), event(1).replace('"data": 1, ', ""), END], "line 3"),
        ([HEADER, event(0), event(1).replace('"data": 1', '"payload": 1'), END], "line 3"),
        ([HEADER, event(0), event(1, time="yesterday"), END], "line 3"),
        ([HEADER, event(0), event(1, time="2026-11-21T05:14:43Z"), END], "line 3"),
        ([HEADER, event(0), event(1, time='2026-11-21T05:14:43.123Z","x":"'), END], "line 3"),
        ([HEADER, event(0), event(1, topic=""), END], "line 3"),
        ([HEADER, event(0), event(1, topic="a,b"), END], "line 3"),
        ([HEADER, event(0), event(1, attempt=0), END], "line 3"),
        ([HEADER, event(0), '{"offset":1,"topic":"t","time":"' + TIME + '","data":' + "[" * 100_000, END], "line 3"),
        ([HEADER, event(0), event(1).replace('"data": 1', '"data": ' + "[" * 129 + "]" * 129), END], "128 levels"),
        (
            [HEADER.replace('"runs"', '"content_type": "text/plain\\r\\nX: y", "runs"'), event(0), event(1), END],
            "line 1",
        ),
        ([HEADER.replace('next_offset": 2', f'next_offset": {2**53 - 1}'), END], "line 1"),
        ([HEADER.replace("null", f'{{"bytes": {10**30}}}'), event(0), event(1), END], "line 1"),
        ([HEADER, event(0), event(1, time="9999-12-31T23:59:59.999Z"), END], "line 3"),
        ([HEADER, event(0), event(1, time="9999-12-31T23:59:59.999-12:00"), END], "line 3"),
        ([HEADER, event(0), event(1, time="0001-01-01T00:00:00.000+12:00"), END], "line 3"),
        ([HEADER, event(0), event(1, topic="$compact", data={}), END], "line 3"),
        ([HEADER, event(0), event(1, topic="$gap", data={"source": "retention"}), END], "line 3"),
        ([HEADER, event(0), event(1, run="r" * 1001), END], "line 3"),
        ([HEADER, event(0), event(1, key="k" * 257), END], "line 3"),
        ([HEADER, event(0), event(1, key="k", message={"id": "m", "op": "set"}), END], "line 3"),
        ([HEADER, event(0), event(1, message={"id": "m", "op": "text"}), END], "line 3"),
        ([HEADER, event(0), event(1, message={"id": "", "op": "set"}), END], "line 3"),
        ([HEADER, event(0), event(1, attempt=2**53), END], "line 3"),
        ([HEADER.replace(TIME, "yesterday"), event(0), event(1), END], "line 1, got 'yesterday'"),
        ([HEADER.replace(TIME, TIME[:-1] + "+00:00"), event(0), event(1), END], "line 1"),
        ([HEADER, event(0), event(1).replace('"data": 1', '"payload": {"metadata": 5}'), END], "line 3"),
    ],
)
async def test_a_file_that_is_not_whole_is_refused_and_leaves_nothing(
    served: Served, lines: list[str], message: str
) -> None:
    status, answer = await imported(served, "a", "\n".join(lines).encode())
    assert (status, answer["error"]["code"]) == (400, "import_invalid")
    assert message in answer["error"]["message"]
    assert (await served.call("GET", "/v1/sessions/a"))[0] == 404
    assert (await served.call("GET", "/v1/sessions"))[1]["sessions"] == []


async def test_every_field_of_an_event_is_exported_and_imported(served: Served) -> None:
    values: dict[str, Any] = {
        "topic": "t",
        "data": {"text": "Gr\u00fc\u00dfe"},
        "payload": {"metadata": {"encoding": "YmluYXJ5"}, "data": "AAE="},
        "key": "k",
        "message": {"id": "m", "op": "set", "complete": True},
        "notify": {"title": "Hi", "for": "ada"},
        "run": "r",
        "activity": "x",
    }
    assert set(values) == set(Incoming.__struct_fields__), "expected a value for every field that a publisher may send"
    for field, value in values.items():
        await served.publish("a", {"topic": "t", field: value}, publisher="p-" + field, sequence="0", attempt="7")
    file = await exported(served, "a")
    assert (await imported(served, "b", file))[0] == 201
    assert (await exported(served, "b")).split(b"\n")[1:] == file.split(b"\n")[1:]
    for field, value in values.items():
        assert any(json.loads(line).get(field) == value for line in file.split(b"\n")[1:-2]), field


async def test_without_restore_an_import_holds_only_lines_that_publishers_can_write(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, max_event_bytes=1024)
    may = ["read", "publish", "manage"]
    run = {"workflow_id": "victim", "run": "1", "run_id": "1", "stream": "1", "workflow_type": "W", "started_at": TIME}
    own = [HEADER, event(0, topic="$run.closed", data={"status": "completed"}), event(1), END]
    named = [HEADER.replace('"runs": []', f'"runs": [{json.dumps(run)}]'), event(0), event(1), END]
    large = [HEADER, event(0, data="x" * 2000), event(1), END]
    past = {"topic": "chat", "time": "2020-01-01T00:00:00.000Z"}
    plain = [HEADER, event(0, **past, key="k"), event(1, **past, activity="a", attempt=1_000_000), END]
    leap = [HEADER, event(0, **past), event(1, **past, activity="a", attempt=1_000_001), END]
    ahead = f"{datetime.now(UTC) + timedelta(minutes=20):%Y-%m-%dT%H:%M:%S}.000Z"
    future = [HEADER, event(0, **past), event(1, time=ahead), END]

    async def status(lines: list[str], **scope: Any) -> tuple[int, str]:
        await served.call("DELETE", "/v1/sessions/a", headers=bearer())
        headers = NDJSON | bearer(**{"allow": may, **scope})
        status, answer = await served.call(
            "POST", "/v1/sessions/a/import", data="\n".join(lines).encode(), headers=headers
        )
        return status, answer.get("error", {}).get("code", "")

    for lines in (own, named, large, leap, future):
        assert await status(lines) == (403, "not_allowed")
        assert (await served.call("GET", "/v1/sessions/a", headers=bearer()))[0] == 404
        assert await status(lines, allow=[*may, "restore"]) == (201, "")
    assert await status(plain, allow=["read", "manage"]) == (403, "not_allowed")
    assert await status(plain, topics=["t"]) == (403, "not_allowed")
    assert await status(plain, topics=["cha*"]) == (201, "")
    # An export is whole, so it takes a token that reads all of it.
    export = "/v1/sessions/a/export"
    for scope in ({"allow": ["manage"]}, {"topics": ["chat"]}):
        answered, answer = await served.call("GET", export, headers=bearer(**{"allow": may, **scope}))
        assert (answered, answer["error"]["code"]) == (403, "not_allowed")
    async with served.http.get(export, headers=bearer(allow=["read", "manage"])) as whole:
        assert whole.status == 200


async def test_text_that_is_not_utf8_is_refused(served: Served) -> None:
    for bad in (b'"data":"\xff"', b'"data":0,"run":"\xff"'):
        line = b'{"offset":0,"topic":"t","time":"' + TIME.encode() + b'",' + bad + b"}"
        status, answer = await imported(served, "a", b"\n".join([HEADER.encode(), line, END.encode()]))
        assert (status, answer["error"]["code"]) == (400, "import_invalid")


async def test_a_file_or_line_over_the_limit_is_refused(serve: Serve) -> None:
    served = await serve(max_import_bytes=400_000, max_body_bytes=1024)
    assert (await imported(served, "a", "\n".join([HEADER, event(0), event(1, data="x" * 60_000), END]).encode()))[
        0
    ] == 201
    for lines in ([HEADER, event(0, data="x" * 70_000)], [HEADER, *(event(n, data="x" * 40_000) for n in range(20))]):
        status, answer = await imported(served, "b", "\n".join(lines).encode())
        assert (status, answer["error"]["code"]) == (413, "body_too_large")
    status, answer = await served.call("POST", "/v1/sessions/b/import", data=HEADER)
    assert (status, answer["error"]["code"]) == (400, "body_invalid")


async def test_an_import_that_is_cut_leaves_nothing(serve: Serve) -> None:
    served = await serve(engine="sqlite")
    arrived = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield (HEADER.replace('next_offset": 2', 'next_offset": 9000') + "\n").encode()
        for n in range(3000):
            yield (event(n) + "\n").encode()
        arrived.set()
        await asyncio.sleep(30)

    importing = asyncio.ensure_future(served.http.post("/v1/sessions/a/import", data=body(), headers=NDJSON))
    await asyncio.wait_for(arrived.wait(), 60)
    _, listed = await served.call("GET", "/v1/sessions")
    assert listed["sessions"] == [], "what is being made is not there"
    assert (await served.call("GET", "/v1/sessions/%01import"))[0] == 400
    importing.cancel()
    await asyncio.gather(importing, return_exceptions=True)
    file = "\n".join([HEADER, event(0), event(1), END]).encode()
    async with asyncio.timeout(60):
        while (made := await imported(served, "a", file))[0] == 409:  # the gateway has yet to notice
            await asyncio.sleep(0.02)
    assert (made[0], made[1]["next_offset"]) == (201, 2)


@on_disk_and_shared
async def test_of_two_imports_of_one_name_one_is_made(served: Served) -> None:
    file = "\n".join([HEADER, event(0), event(1), END]).encode()
    answers = await asyncio.gather(*(imported(served, "a", file) for _ in range(5)))
    assert sorted(status for status, _ in answers) == [201, 409, 409, 409, 409]
    _, listed = await served.call("GET", "/v1/sessions")
    assert [s["session"] for s in listed["sessions"]] == ["a"]


@on_disk
async def test_a_large_session_passes_through_little_memory(served: Served) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield (HEADER.replace('next_offset": 2', 'next_offset": 20000') + "\n").encode()
        for start in range(0, 20_000, 500):
            yield "".join(event(n, data="y" * 500) + "\n" for n in range(start, start + 500)).encode()
        yield b'{"wakeline_export_end":20000}\n'

    status, made = await imported(served, "a", body())  # type: ignore[arg-type]
    assert (status, made["next_offset"]) == (201, 20_000)
    seen = 0
    async with served.http.get("/v1/sessions/a/export") as answer:
        async for _ in answer.content:
            seen += 1
    assert seen == 20_002


@on_disk
@pytest.mark.parametrize("how", ["deleted", "trimmed"])
async def test_an_export_that_cannot_be_finished_is_cut_short(served: Served, how: str) -> None:
    await fill(served, 600)
    async with served.http.get("/v1/sessions/a/export", read_bufsize=1024) as answer:
        await answer.content.readexactly(100)
        if how == "deleted":
            assert (await served.call("DELETE", "/v1/sessions/a"))[0] == 204
        else:
            await served.call("PUT", "/v1/sessions/a", json={"retention": {"events": 1}})
            async with asyncio.timeout(60):
                while (await served.call("GET", "/v1/sessions/a"))[1]["first_offset"] < 599:
                    await asyncio.sleep(0.05)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readexactly(1_000_000_000)


async def until_cut(served: Served) -> None:
    """Return when the gateway has no connection but the one that asks."""
    async with asyncio.timeout(60):
        while await served.metric("wakeline_connections_open") > 1:
            await asyncio.sleep(0.05)


@on_disk
async def test_who_takes_nothing_of_an_export_is_cut(serve: Serve) -> None:
    served = await serve(write_timeout=0.3)
    await fill(served, 600)
    async with served.http.get("/v1/sessions/a/export", read_bufsize=1024) as answer:
        await until_cut(served)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_who_may_manage_a_session_may_do_so(serve: Serve, method: str, path: str) -> None:
    served = await serve(token_secret=SECRET)
    reader, other = bearer(allow=["read", "publish", "ack"]), bearer(sessions=["b*"])
    status, answer = await served.call(method, f"/v1/sessions/a{path}", headers=NDJSON)
    assert (status, answer["error"]["code"]) == (401, "token_missing")
    status, answer = await served.call(method, f"/v1/sessions/a{path}", headers=NDJSON | reader)
    assert (status, answer["error"]["code"]) == (403, "not_allowed")
    status, refused = await served.call(method, f"/v1/sessions/a{path}", headers=NDJSON | other)
    assert (status, refused["error"]["code"]) == (404, "session_not_found")
    if path != "/import" and method != "PUT":
        assert await served.call(method, f"/v1/sessions/a{path}", headers=bearer()) == (404, refused)


@on_disk
async def test_an_export_ends_with_its_token(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, open_metrics=True)
    await fill(served, 600, bearer())
    brief = bearer(exp=time.time() + 8)
    async with served.http.get("/v1/sessions/a/export", headers=brief, read_bufsize=1024) as answer:
        await until_cut(served)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_names_are_checked(served: Served, method: str, path: str) -> None:
    status, answer = await served.call(method, f"/v1/sessions/a%0Ab{path}", headers=NDJSON)
    assert (status, answer["error"]["code"]) == (400, "session_name_invalid")
    if method != "PUT" and path != "/import":
        status, answer = await served.call(method, f"/v1/sessions/nowhere{path}")
        assert (status, answer["error"]["code"]) == (404, "session_not_found")
