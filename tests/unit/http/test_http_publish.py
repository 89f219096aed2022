from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import Served
from tests.unit.conftest import Serve
from wakeline.gateway.delivery.accept import OWN_PUBLISHERS

EVENT = {"topic": "t", "data": 1}
PATH = "/v1/sessions/s/events"


async def test_a_batch_is_appended_atomically_and_told_where_it_stands(served: Served) -> None:
    answer = await served.publish("s", {"topic": "a", "data": {"x": [1, None]}}, {"topic": "b"})
    assert {k: answer[k] for k in ("first_offset", "next_offset", "duplicate")} == {
        "first_offset": 0,
        "next_offset": 2,
        "duplicate": False,
    }
    _, page = await served.call("GET", PATH)
    assert [(e["offset"], e["topic"], e["data"]) for e in page["events"]] == [
        (0, "a", {"x": [1, None]}),
        (1, "b", None),
    ]
    assert page["cursor"] == f"{answer['epoch']}-2"
    status, _ = await served.call("POST", PATH, json={"events": [EVENT, {"topic": "$no"}]})
    assert status == 400
    _, page = await served.call("GET", PATH)
    assert len(page["events"]) == 2


async def test_ndjson_is_one_event_a_line(served: Served) -> None:
    body = b'{"topic":"a","data":1}\n\n{"topic":"b","data":{"s":"\xc3\xbc"}}\n'
    status, answer = await served.call("POST", PATH, data=body, headers={"Content-Type": "application/x-ndjson"})
    assert (status, answer["next_offset"]) == (200, 2)
    status, refused = await served.call(
        "POST", PATH, data=body + b"{", headers={"Content-Type": "application/x-ndjson"}
    )
    assert (status, refused["error"]["code"]) == (400, "body_invalid")
    assert "line 4" in refused["error"]["message"]


async def test_the_headers_make_an_append_idempotent_and_fenced(served: Served) -> None:
    first = await served.publish("s", EVENT, EVENT, publisher="p", sequence="0")
    again = await served.publish("s", EVENT, EVENT, EVENT, publisher="p", sequence="0", attempt="1")
    assert (again["first_offset"], again["next_offset"], again["duplicate"]) == (0, 3, False)
    whole = await served.publish("s", EVENT, EVENT, publisher="p", sequence="0")
    assert whole == {**first, "duplicate": True}

    headers = {"Wakeline-Publisher": "p", "Wakeline-Sequence": "7"}
    status, answer = await served.call("POST", PATH, json={"events": [EVENT]}, headers=headers)
    assert (status, answer["error"]["code"], answer["error"]["expected"]) == (409, "sequence_gap", 3)

    await served.publish("s", EVENT, publisher="p", sequence="0", attempt="2")
    headers = {"Wakeline-Publisher": "p", "Wakeline-Sequence": "3", "Wakeline-Attempt": "1"}
    status, answer = await served.call("POST", PATH, json={"events": [EVENT]}, headers=headers)
    assert (status, answer["error"]["code"], answer["error"]["attempt"]) == (409, "attempt_fenced", 2)


async def test_a_publisher_of_a_deleted_session_is_refused_and_does_not_create_it(served: Served) -> None:
    async def goes_on() -> tuple[int, str]:
        headers = {"Wakeline-Publisher": "p", "Wakeline-Sequence": "1"}
        status, answer = await served.call("POST", PATH, json={"events": [EVENT]}, headers=headers)
        return status, answer["error"]["code"]

    async def opens(epoch: str) -> tuple[int, str]:
        status, answer = await served.call("PUT", "/v1/sessions/s/publishers/p", json={"epoch": epoch})
        return status, answer["error"]["code"]

    epoch = (await served.publish("s", EVENT, publisher="p", sequence="0"))["epoch"]
    assert (await served.call("DELETE", "/v1/sessions/s"))[0] == 204
    assert await goes_on() == await opens(epoch) == (410, "session_deleted")
    assert (await served.call("GET", PATH))[0] == 404
    await served.publish("s", EVENT)
    assert await goes_on() == (409, "sequence_gap")  # the append does not tell of which life it is
    assert await opens(epoch) == (410, "session_deleted")
    assert (await served.call("PUT", "/v1/sessions/s/publishers/p", json={}))[0] == 200


async def test_an_activity_is_told_with_its_attempt(served: Served) -> None:
    await served.publish("s", {"topic": "t", "run": "r", "activity": "7"}, publisher="p", sequence="0", attempt="3")
    _, page = await served.call("GET", PATH)
    event = page["events"][0]
    assert (event["run"], event["activity"], event["attempt"]) == ("r", "7", 3)


DEEP = '{"events":[{"topic":"t","data":' + "[" * 100_000 + "]" * 100_000 + "}]}"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body_invalid"),
        (b"not json", "body_invalid"),
        (b"[]", "body_invalid"),
        (b'{"events":[]}', "body_invalid"),
        (b'{"events":[{"data":1}]}', "body_invalid"),
        (b'{"events":[{"topic":"t","dta":1}]}', "body_invalid"),
        (b'{"events":[{"topic":"t","data":tru}]}', "body_invalid"),
        (b'{"events":[{"topic":"t","data":"\xff"}]}', "body_invalid"),
        (b'{"events":[{"topic":"t","data":"a\nb"}]}', "body_invalid"),
        (DEEP.encode(), "body_invalid"),
        (b'{"events":[{"topic":""}]}', "topic_invalid"),
        (b'{"events":[{"topic":"$run.closed"}]}', "topic_invalid"),
        (b'{"events":[{"topic":"a\\u000ab"}]}', "topic_invalid"),
        (b'{"events":[{"topic":"a\\rb"}]}', "topic_invalid"),
        (b'{"events":[{"topic":"a\\u0000b"}]}', "topic_invalid"),
        (b'{"events":[{"topic":"a\\u2028b"}]}', "topic_invalid"),
        (b'{"events":[{"topic":"a,b"}]}', "topic_invalid"),
        (json.dumps({"events": [{"topic": "t" * 257}]}).encode(), "topic_invalid"),
    ],
)
async def test_a_bad_body_is_refused_and_nothing_is_appended(served: Served, body: bytes, code: str) -> None:
    await served.publish("s", EVENT)
    status, answer = await served.call("POST", PATH, data=body, headers={"Content-Type": "application/json"})
    assert (status, answer["error"]["code"]) == (400, code)
    assert answer["error"]["message"]
    assert answer["error"]["hint"]
    _, state = await served.call("GET", "/v1/sessions/s")
    assert state["next_offset"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Wakeline-Publisher": "p"},
        {"Wakeline-Sequence": "0"},
        {"Wakeline-Attempt": "1"},
        {"Wakeline-Publisher": "p", "Wakeline-Sequence": "-1"},
        {"Wakeline-Publisher": "p", "Wakeline-Sequence": "1e3"},
        {"Wakeline-Publisher": "p", "Wakeline-Sequence": "9007199254740992"},
        {"Wakeline-Publisher": "p", "Wakeline-Sequence": "0", "Wakeline-Attempt": "0"},
        {"Wakeline-Publisher": "p" * 257, "Wakeline-Sequence": "0"},
    ],
)
async def test_bad_publisher_headers_are_refused(served: Served, headers: dict[str, str]) -> None:
    status, answer = await served.call("POST", PATH, json={"events": [EVENT]}, headers=headers)
    assert (status, answer["error"]["code"]) == (400, "request_invalid")


async def test_a_body_of_another_type_is_refused(served: Served) -> None:
    status, answer = await served.call("POST", PATH, data=b'{"events":[]}', headers={"Content-Type": "text/plain"})
    assert (status, answer["error"]["code"]) == (400, "body_invalid")


async def test_an_event_or_body_over_the_limit_is_refused(serve: Serve) -> None:
    served = await serve(max_event_bytes=2000, max_body_bytes=10_000)
    await served.publish("s", {"topic": "t", "data": "x" * 1990})
    status, answer = await served.call("POST", PATH, json={"events": [{"topic": "t", "data": "x" * 2000}]})
    assert (status, answer["error"]["code"]) == (413, "event_too_large")
    status, answer = await served.call("POST", PATH, json={"events": [EVENT] * 1000})
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    _, state = await served.call("GET", "/v1/sessions/s")
    assert state["next_offset"] == 1


async def test_an_event_of_exactly_the_default_limit_arrives_whole(served: Served) -> None:
    data = "ü" * (512 * 1024 - 1)
    status, _ = await served.call(
        "POST",
        PATH,
        data=BytesIO(json.dumps({"events": [{"topic": "t", "data": data}]}, ensure_ascii=False).encode()),
        headers={"Content-Type": "application/json"},
    )
    assert status == 200
    stream = await served.stream("s")
    assert (await stream.next())["data"] == data
    stream.close()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("a%2Fb", 200),
        ("%E2%9C%93%20x", 200),
        ("..%2F..", 200),
        ("%2E%2E%2F%2E", 200),
        ("%2525", 200),
        ("a%0Db", 400),
        ("x" * 512, 200),
        ("%C3%BC" * 256, 200),
        ("x" * 513, 400),
        ("%C3%BC" * 257, 400),
        ("a%0Ab", 400),
        ("a%00b", 400),
        ("a%C2%85b", 400),
        ("a%E2%80%A8b", 400),
    ],
)
async def test_session_names(served: Served, name: str, status: int) -> None:
    got, answer = await served.call("POST", f"/v1/sessions/{name}/events", json={"events": [EVENT]})
    assert got == status, answer
    if status == 400:
        assert answer["error"]["code"] == "session_name_invalid"
    else:
        got, state = await served.call("GET", f"/v1/sessions/{name}")
        assert (got, state["next_offset"]) == (200, 1)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b"123456789012345678901234567890",
        b"-0.0",
        b"1e400",
        b'"\\u2028\\ud83d\\ude00 \\/"',
        '"\u2028\u2029é\U0001f600"'.encode(),
        b"[" * 128 + b"]" * 128,
    ],
)
async def test_what_is_json_comes_out_as_it_went_in(served: Served, data: bytes) -> None:
    body = b'{"events":[{"topic":"t","data":%b}]}' % data
    status, _ = await served.call("POST", PATH, data=body, headers={"Content-Type": "application/json"})
    assert status == 200
    async with served.http.get(PATH) as answer:
        assert b'"data":%b,"time"' % data in await answer.read()


async def test_whitespace_with_line_breaks_still_makes_one_line(served: Served) -> None:
    body = b'{"events":[{"topic":"t","data":{\r\n "a": [1,\n2], "b": "c\\nd"}}]}'
    status, _ = await served.call("POST", PATH, data=body, headers={"Content-Type": "application/json"})
    assert status == 200
    stream = await served.stream("s")
    event: dict[str, Any] = await stream.next()
    assert event["data"] == {"a": [1, 2], "b": "c\nd"}
    stream.close()


async def opened(served: Served, publisher: str = "p", **body: Any) -> Any:
    status, answer = await served.call("PUT", f"/v1/sessions/s/publishers/{publisher}", json=body)
    return answer if status == 200 else (status, answer["error"]["code"])


async def test_an_attempt_is_opened_and_told_what_has_arrived(served: Served) -> None:
    first = await opened(served, activity="7", run="r")
    assert {key: first[key] for key in ("attempt", "next_sequence", "earlier_events")} == {
        "attempt": 1, "next_sequence": 0, "earlier_events": 0,
    }  # fmt: skip
    await served.publish("s", EVENT, EVENT, publisher="p", sequence="0", activity="7", run="r")
    assert (await opened(served, activity="7"))["next_sequence"] == 2
    await opened(served, attempt=2, activity="7", run="r")
    assert await opened(served) == (409, "attempt_fenced")
    _, page = await served.call("GET", "/v1/sessions/s/events")
    assert [(e["topic"], e["run"], e["activity"], e["attempt"]) for e in page["events"]] == [
        ("t", "r", "7", 1), ("t", "r", "7", 1), ("$attempt.superseded", "r", "7", 2),
    ]  # fmt: skip
    assert page["events"][2]["data"] == {"activity": "7", "attempt": 2, "offsets": [[0, 1]]}


@pytest.mark.parametrize(
    ("headers", "kept"), [({"supersede": "false", "activity": "7"}, 1), ({}, 1), ({"activity": "7"}, 0)]
)
async def test_a_later_attempt_supersedes_what_an_activity_said_unless_it_says_otherwise(
    served: Served, headers: dict[str, str], kept: int
) -> None:
    await served.publish("s", EVENT, publisher="p", sequence="0", **headers)
    answer = await served.publish("s", EVENT, publisher="p", sequence="0", attempt="2", **headers)
    assert answer["first_offset"] == 2 - kept
    assert (await opened(served, attempt=2))["earlier_events"] == kept


async def test_what_is_not_ascii_is_percent_encoded_in_headers(served: Served) -> None:
    await served.publish("s", EVENT, publisher="p", sequence="0", activity="Gr%C3%BC%C3%9Fe", run="r%20%2F")
    _, page = await served.call("GET", "/v1/sessions/s/events")
    assert (page["events"][0]["activity"], page["events"][0]["run"]) == ("Grüße", "r /")


@pytest.mark.parametrize(
    "body", [{"attempt": 0}, {"attempt": "1"}, {"atempt": 1}, {"supersede": "no"}, {"attempt": 2**53}], ids=str
)
async def test_a_bad_opening_is_refused(served: Served, body: dict[str, Any]) -> None:
    assert await opened(served, **body) == (400, "body_invalid")
    assert (await served.call("PUT", "/v1/sessions/s/publishers/p", data=b"{"))[0] == 400
    assert await opened(served, publisher="%E2%82%AC") == (400, "request_invalid")


@pytest.mark.parametrize("headers", [{"activity": "%FF"}, {"supersede": "maybe"}], ids=str)
async def test_bad_headers_of_an_attempt_are_refused(served: Served, headers: dict[str, str]) -> None:
    named = {f"Wakeline-{key.title()}": value for key, value in headers.items()}
    asked = {"Wakeline-Publisher": "p", "Wakeline-Sequence": "0", **named}
    status, answer = await served.call("POST", "/v1/sessions/s/events", json={"events": [EVENT]}, headers=asked)
    assert (status, answer["error"]["code"]) == (400, "request_invalid")


@pytest.mark.parametrize("name", [f"{own}r" for own in OWN_PUBLISHERS])
async def test_nobody_can_publish_as_wakeline_itself(served: Served, name: str) -> None:
    """Else a run's end, appended under the same name, would be taken for a repetition, and never be told."""
    assert await opened(served, publisher=name) == (400, "request_invalid")
    who = {"Wakeline-Publisher": name, "Wakeline-Sequence": "0"}
    status, answer = await served.call("POST", PATH, json={"events": [EVENT]}, headers=who)
    assert (status, answer["error"]["code"]) == (400, "request_invalid")


@pytest.mark.parametrize("session", ["{order}", 'a"b', "back\\slash", "100%_", "snö/☃", "?#&=+;,:@ !$'()*[]|^`<>~"])
async def test_a_session_may_have_any_printable_name(serve: Serve, session: str) -> None:
    served = await serve(engine="memory")
    await served.publish(session, {"topic": "t", "data": 1})
    path = f"/v1/sessions/{quote(session, safe='')}"
    assert (await served.call("GET", path))[1]["session"] == session
    assert (await served.call("GET", f"{path}/events"))[1]["events"][0]["data"] == 1


@pytest.mark.parametrize("header", ["Wakeline-Publishr", "wakeline-seq"])
async def test_a_header_that_publishing_does_not_have_is_refused_by_name(served: Served, header: str) -> None:
    body = {"events": [{"topic": "t"}]}
    status, answer = await served.call("POST", "/v1/sessions/s/events", json=body, headers={header: "1"})
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
    assert header in answer["error"]["message"]
    assert "Wakeline-Publisher, Wakeline-Attempt, Wakeline-Sequence" in answer["error"]["hint"]
    status, answer = await served.call("PUT", "/v1/sessions/s/publishers/p", json={}, headers={header: "1"})
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
    assert "in the body" in answer["error"]["hint"]
    assert (await served.call("GET", "/v1/sessions/s"))[0] == 404
