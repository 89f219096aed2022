"""What a session and a stream are to each other. The protocol itself is tested by its public suite, in tests/conformance."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.durable import BYTES, CLOSED, JSON, TEXT, Durable
from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.conftest import Serve, on_disk


async def events(served: Served, session: str = "s") -> list[dict[str, Any]]:
    status, page = await served.call("GET", f"/v1/sessions/{session}/events")
    assert status == 200, page
    found: list[dict[str, Any]] = page["events"]
    return found


async def test_a_message_is_the_data_of_an_event(served: Served) -> None:
    stream = Durable(served)
    assert (await stream.put()).status == 201
    assert (await stream.post([{"a": 1}, [2, 3]])).status == 204
    found = await events(served)
    assert [(e["offset"], e["topic"], e["data"]) for e in found] == [(0, "message", {"a": 1}), (1, "message", [2, 3])]
    assert (await stream.get()).json == [{"a": 1}, [2, 3]]


async def test_json_stays_as_it_was_posted(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    await stream.post(b'{"b": 1, "a": 1e999, "b": 12345678901234567890123}')
    assert (await stream.get()).body == b'[{"b": 1, "a": 1e999, "b": 12345678901234567890123}]'


async def test_text_is_a_string_to_other_readers(served: Served) -> None:
    stream = Durable(served)
    await stream.put(TEXT)
    await stream.post("Grüße,\r\n日本 \0".encode(), TEXT)
    await stream.post(b"\xff no text", TEXT)
    text, other = await events(served)
    assert text["data"] == "Grüße,\r\n日本 \0"
    assert base64.b64decode(other["payload"]["data"]) == b"\xff no text"
    assert (await stream.get()).body == "Grüße,\r\n日本 \0".encode() + b"\xff no text"


async def test_bytes_are_a_payload_to_other_readers(served: Served) -> None:
    stream = Durable(served)
    await stream.put(BYTES, bytes(range(256)))
    (event,) = await events(served)
    assert "data" not in event
    assert base64.b64decode(event["payload"]["metadata"]["encoding"]) == b"binary/plain"
    assert base64.b64decode(event["payload"]["data"]) == bytes(range(256))
    assert (await stream.get()).body == bytes(range(256))


async def test_long_bytes_are_several_events_and_one_body(serve: Serve) -> None:
    served = await serve(max_event_bytes=1024)
    for form, body in ((BYTES, bytes(range(256)) * 20), (TEXT, "日本語".encode() * 700), (TEXT, b"\0" * 5000)):
        stream = Durable(served, f"long-{len(body)}")
        await stream.put(form)
        assert (await stream.post(body, form)).status == 204
        found = await events(served, f"long-{len(body)}")
        assert len(found) > 3
        assert all(len(json.dumps(e.get("data", e.get("payload")), ensure_ascii=False)) <= 1200 for e in found)
        assert (await stream.get()).body == body
    assert all(event["data"].strip("日本語") == "" for event in await events(served, "long-6300"))


async def test_a_session_of_publishers_is_a_stream_of_whole_events(served: Served) -> None:
    await served.publish("s", {"topic": "a", "data": 1}, {"topic": "b", "data": {"x": None}, "run": "r"})
    stream = Durable(served)
    answer = await stream.get()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == await events(served)
    assert [message["topic"] for message in answer.json] == ["a", "b"]
    assert (await stream.put()).status == 200
    assert (await stream.put(TEXT)).error == (409, "stream_conflict")
    await stream.post("mine")
    assert (await stream.get(f"?offset={answer.next}")).json == (await events(served))[2:]


async def test_what_publishers_write_to_a_stream_is_in_it(served: Served) -> None:
    for form, expected in ((JSON, b'[{"x":1},"text"]'), (TEXT, b'{"x":1}text')):
        stream = Durable(served, form["Content-Type"][:4])
        await stream.put(form)
        name = form["Content-Type"][:4]
        await served.publish(name, {"topic": "a", "data": {"x": 1}}, {"topic": "a", "data": "text"})
        assert (await stream.get()).body.replace(b": ", b":") == expected


async def test_closing_is_the_last_event_and_no_message(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    closed = await stream.post(["last"], **CLOSED)
    assert closed.headers["Stream-Closed"] == "true"
    assert [event["topic"] for event in await events(served)] == ["message", "$session.closed"]
    answer = await stream.get()
    assert (answer.json, answer.headers["Stream-Closed"], answer.next) == (["last"], "true", closed.next)
    status, refused = await served.call("POST", "/v1/sessions/s/events", json={"events": [{"topic": "t"}]})
    assert (status, refused["error"]["code"]) == (409, "session_closed")


@on_disk
async def test_a_stream_is_made_whole_or_not_at_all(serve: Serve) -> None:
    served = await serve(max_event_bytes=1024)
    stream = Durable(served)
    assert (await stream.put(JSON, ["x" * 2000])).error == (413, "event_too_large")
    assert (await stream.put(JSON, b"[1,")).error == (400, "body_invalid")
    assert (await stream.head()).status == 404
    answers = await asyncio.gather(*[stream.put(JSON, [n], **CLOSED) for n in range(20)])
    assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
    assert len((await stream.get()).json) == 1
    _, page = await served.call("GET", "/v1/sessions")
    assert [session["session"] for session in page["sessions"]] == ["s"]


async def test_an_offset_of_an_earlier_life_is_refused(served: Served) -> None:
    stream = Durable(served)
    old = (await stream.put(JSON, ["old"])).next
    assert (await stream.delete()).status == 204
    assert (await stream.get()).error == (404, "session_not_found")
    new = await stream.put(JSON, ["new"])
    assert new.status == 201
    assert (await stream.get(f"?offset={old}")).error == (410, "epoch_changed")
    assert (await stream.get(f"?offset={old}&live=long-poll")).error == (410, "epoch_changed")
    assert (await stream.get(f"?offset={old}&live=sse")).error == (410, "epoch_changed")
    assert (await stream.get("?offset=-1")).json == ["new"]
    assert (await stream.get("?offset=now")).next == new.next


async def test_what_retention_has_taken_is_gone_and_the_beginning_is_what_is_kept(served: Served) -> None:
    stream = Durable(served)
    first = (await stream.put()).next
    for n in range(20):
        await stream.post([n])
    status, _ = await served.call("PUT", "/v1/sessions/s", json={"retention": {"events": 5}})
    assert status == 200
    async with asyncio.timeout(60):
        while (await stream.get()).json[0] == 0:
            await asyncio.sleep(0.05)
    assert (await stream.get()).json == [15, 16, 17, 18, 19]
    assert (await stream.get(f"?offset={first}")).error == (410, "offset_gone")
    assert (await stream.get(f"?offset={first}&live=sse")).error == (410, "offset_gone")
    assert (await stream.head()).headers["Content-Type"] == "application/json"


async def test_names_may_have_slashes(served: Served) -> None:
    stream = Durable(served, "chat/a%2Fb/c")
    created = await stream.put(JSON, ["x"])
    assert created.headers["Location"].endswith("/v1/stream/chat/a%2Fb/c")
    assert (await Durable(served, "chat%2Fa%2Fb%2Fc").get()).json == ["x"]
    assert [event["data"] for event in await events(served, "chat%2Fa%2Fb%2Fc")] == ["x"]


async def test_who_may_do_what(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)

    def caller(*allow: str, **more: Any) -> Durable:
        return Durable(served, Authorization=f"Bearer {token(allow=list(allow), sessions=['s'], **more)}")

    assert (await caller("read", "publish").put()).error == (403, "not_allowed")
    assert (await caller("manage").put(JSON, [1])).error == (403, "not_allowed")
    assert (await caller("manage", "publish", topics=["status"]).put(JSON, [1])).error == (403, "not_allowed")
    assert (await caller("manage").put()).status == 201
    assert (await caller("read", "manage").post([1])).error == (403, "not_allowed")
    assert (await caller("publish").post([1])).status == 204
    assert (await caller("publish", topics=["status"]).post([1])).error == (403, "not_allowed")
    assert (await caller("publish", "manage").get()).error == (403, "not_allowed")
    assert (await caller("read").get()).json == [1]
    assert (await caller("read", topics=["status"]).get()).json == []
    assert (await caller("publish").post([2], **CLOSED)).error == (403, "not_allowed")
    assert (await caller("publish", "manage").post([2], **CLOSED)).status == 204
    assert (await caller("read", "publish").delete()).error == (403, "not_allowed")
    assert (await caller("manage").delete()).status == 204
    assert (await Durable(served, "other", Authorization=f"Bearer {token(sessions=['s'])}").get()).error == (
        404,
        "session_not_found",
    )
    assert (await Durable(served).get()).error == (401, "token_missing")


async def test_full_pages_are_kept_by_caches_if_the_token_says_so(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    stream = Durable(served, Authorization=f"Bearer {token(cache=True)}")
    begin = (await stream.put()).next
    for n in range(6):
        await stream.post(["x" * 60_000 + str(n)])
    page = await stream.get(f"?offset={begin}")
    assert "Stream-Up-To-Date" not in page.headers
    assert page.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    again = await stream.get(f"?offset={begin}", **{"If-None-Match": page.headers["ETag"]})
    assert (again.status, again.body, again.next) == (304, b"", page.next)
    last = await stream.get(f"?offset={page.next}")
    assert last.headers["Cache-Control"] == "no-store"
    assert (await stream.get("?offset=-1")).headers["Cache-Control"] == "no-store"
    other = Durable(served, Authorization=f"Bearer {token()}")
    assert (await other.get(f"?offset={begin}")).headers["Cache-Control"] == "no-store"


async def test_a_tag_changes_with_the_end(served: Served) -> None:
    stream = Durable(served)
    await stream.put(JSON, [1])
    tags = [(await stream.get()).headers["ETag"]]
    await stream.post(**CLOSED)
    tags.append((await stream.get()).headers["ETag"])
    assert len(set(tags)) == 2
    assert (await stream.get("", **{"If-None-Match": tags[0]})).status == 200
    assert (await stream.get("", **{"If-None-Match": f'"x", W/{tags[1]}'})).status == 304


@on_disk
async def test_everybody_reads_what_they_wrote(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    watching = await stream.live("?offset=now&live=sse")
    for n in range(100):
        written = await stream.post([n])
        assert len((await stream.get()).json) == n + 1
        live = await stream.live(f"?offset={written.next}&live=sse")
        assert (await live.control())["streamNextOffset"] == written.next
        live.close()
    watching.close()
    closed = await stream.post(**CLOSED)
    assert (await stream.get(f"?offset={closed.next}")).headers["Stream-Closed"] == "true"


@pytest.mark.parametrize("method", ["PUT", "POST", "GET", "HEAD", "DELETE"])
async def test_reserved_names_are_refused(served: Served, method: str) -> None:
    answer = await Durable(served, "__ds/subscriptions/x").call(method)
    assert answer.status == 501
    if method != "HEAD":
        assert answer.error == (501, "not_implemented")


async def test_forks_are_refused_and_leave_nothing(served: Served) -> None:
    await Durable(served).put(JSON, [1])
    fork = Durable(served, "fork")
    for header in ("Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset"):
        assert (await fork.put(JSON, **{header: "/v1/stream/s"})).error == (501, "not_implemented")
    assert (await fork.head()).status == 404
