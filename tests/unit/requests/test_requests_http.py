"""Requests for input over HTTP: asked once, answered once, by those who may, until they expire."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support import Served
from tests.unit.conftest import Serve
from wakeline.client import SessionClient
from wakeline.gateway.devices import Positions

TWO_GATEWAYS = True

PATH = "/v1/sessions/order-1/requests"
ASKED: dict[str, Any] = {"id": "pay-1", "reason": "approval", "message": "Pay?", "choices": ["approve", "reject"]}


async def ask(served: Served, **changed: Any) -> dict[str, Any]:
    headers = changed.pop("headers", {})
    status, answer = await served.call("POST", PATH, json={**ASKED, **changed}, headers=headers)
    assert status == 200, answer
    return dict(answer)


async def answer(served: Served, payload: Any = "approve", id: str = "pay-1", **more: Any) -> tuple[int, Any]:
    headers = more.pop("headers", {})
    return await served.call("POST", f"{PATH}/{id}", json={"payload": payload, **more}, headers=headers)


async def events(served: Served, *topics: str) -> list[tuple[str, dict[str, Any]]]:
    _, page = await served.call("GET", f"/v1/sessions/order-1/events?topics={','.join(topics or ('$input.*',))}")
    return [(event["topic"], event["data"]) for event in page["events"]]


async def test_a_request_is_asked_listed_answered_and_closed(served: Served) -> None:
    asked = await ask(served, metadata={"amount": 12}, tool_call_id="call-1")
    assert asked == {**ASKED, "metadata": {"amount": 12}, "tool_call_id": "call-1", "status": "open"}
    assert (await served.call("GET", PATH))[1] == {"requests": [asked], "after": None}
    status, answered = await answer(served, device="phone-1")
    outcome = {"request": "pay-1", "status": "resolved", "payload": "approve", "device": "phone-1"}
    assert (status, answered) == (200, {**asked, "status": "resolved", "outcome": outcome})
    assert (await served.call("GET", PATH))[1] == {"requests": [], "after": None}
    assert (await served.call("GET", f"{PATH}/pay-1"))[1] == answered
    requested = {name: value for name, value in asked.items() if name != "status"}
    assert await events(served) == [("$input.requested", requested), ("$input.resolved", outcome)]


async def test_a_request_of_the_next_session_of_a_name_outlives_the_deletion_of_the_one_before(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve()
    await ask(served)
    forget_session = Positions.forget_session

    async def slow(self: Positions, session: str) -> None:
        await forget_session(self, session)
        await ask(served, id="pay-2")  # which creates the session again

    monkeypatch.setattr(Positions, "forget_session", slow)
    assert (await served.call("DELETE", "/v1/sessions/order-1"))[0] == 204
    assert [request["id"] for request in (await served.call("GET", PATH))[1]["requests"]] == ["pay-2"]
    assert (await answer(served, id="pay-2"))[0] == 200
    assert (await answer(served))[0] == 404


async def test_without_tokens_there_are_no_users_and_anybody_answers_for_an_audience(served: Served) -> None:
    await ask(served, audience=["alice"])
    status, answered = await answer(served)
    assert (status, "by" in answered["outcome"]) == (200, False)


async def test_asking_twice_with_one_id_is_one_request(served: Served) -> None:
    asked = await ask(served, expires_in=60)
    assert await ask(served, expires_in=60) == asked
    status, refused = await served.call("POST", PATH, json={**ASKED, "message": "Pay more?"})
    assert (status, refused["error"]["code"]) == (409, "request_conflict")
    await answer(served)
    assert (await ask(served, expires_in=60))["status"] == "resolved"
    assert [topic for topic, _ in await events(served)] == ["$input.requested", "$input.resolved"]


async def test_the_first_answer_counts_and_the_same_one_again_is_accepted(served: Served) -> None:
    await ask(served)
    first = await answer(served)
    assert await answer(served) == first
    status, refused = await answer(served, "reject")
    assert (status, refused["error"]["code"]) == (409, "already_resolved")
    assert refused["error"]["outcome"] == first[1]["outcome"]


async def test_of_many_answers_at_once_one_counts(served: Served) -> None:
    await ask(served, choices=[f"choice {n}" for n in range(30)])
    answers = await asyncio.gather(*(answer(served, f"choice {n}") for n in range(30)))
    assert sorted(status for status, _ in answers) == [200] + [409] * 29
    (won,) = [one["outcome"] for status, one in answers if status == 200]
    assert all(one["error"]["outcome"] == won for status, one in answers if status == 409)
    assert await events(served, "$input.resolved") == [("$input.resolved", won)]


async def test_no_answer_is_accepted_after_the_expiry(served: Served) -> None:
    await ask(served, expires_in=0.2)
    status, found = await served.call("GET", f"{PATH}/pay-1?wait=30")
    assert (status, found["status"], found["outcome"]) == (200, "expired", {"request": "pay-1", "status": "expired"})
    status, refused = await answer(served)
    assert (status, refused["error"]["code"], refused["error"]["outcome"]["status"]) == (
        409,
        "already_resolved",
        "expired",
    )
    assert await events(served, "$input.resolved") == [("$input.resolved", found["outcome"])]


async def test_an_expired_request_is_closed_although_nobody_reads_it(served: Served) -> None:
    await ask(served, expires_in=0.1)
    stream = await served.stream("order-1", "topics=$input.resolved")
    event = await stream.next()
    assert event["data"] == {"request": "pay-1", "status": "expired"}


async def test_the_outcome_can_be_awaited(served: Served) -> None:
    await ask(served)
    waiting = asyncio.create_task(served.call("GET", f"{PATH}/pay-1?wait=30"))
    await asyncio.sleep(0)
    _, answered = await answer(served, "reject")
    assert await waiting == (200, answered)


async def test_an_asker_cancels_and_an_answerer_declines(served: Served) -> None:
    await ask(served)
    status, cancelled = await served.call("DELETE", f"{PATH}/pay-1")
    assert (status, cancelled["outcome"]) == (200, {"request": "pay-1", "status": "cancelled"})
    assert (await served.call("DELETE", f"{PATH}/pay-1"))[0] == 200
    assert (await answer(served))[0] == 409
    await ask(served, id="pay-2")
    status, declined = await served.call("POST", f"{PATH}/pay-2", json={"status": "cancelled", "device": "phone"})
    assert declined["outcome"] == {"request": "pay-2", "status": "cancelled", "device": "phone"}
    await ask(served, id="pay-3")
    await answer(served, id="pay-3")
    status, refused = await served.call("DELETE", f"{PATH}/pay-3")
    assert (status, refused["error"]["code"]) == (409, "already_resolved")


async def test_a_payload_is_checked_against_choices_or_schema(served: Served) -> None:
    await ask(served)
    assert (await answer(served, "perhaps"))[1]["error"]["code"] == "value_invalid"
    schema = {"type": "object", "properties": {"approved": {"type": "boolean"}}, "required": ["approved"]}
    await ask(served, id="form", choices=None, response_schema=schema)
    status, refused = await answer(served, {"approved": "yes"}, "form")
    assert (status, refused["error"]["code"]) == (400, "value_invalid")
    assert "payload['approved']" in refused["error"]["message"]
    assert (await answer(served, {"approved": True}, "form"))[0] == 200
    await ask(served, id="any", choices=None)
    assert (await answer(served, {"n": 1, "x": [None, 1.5]}, "any"))[1]["outcome"]["payload"] == {
        "n": 1,
        "x": [None, 1.5],
    }
    # The same value, written otherwise.
    assert (await answer(served, {"x": [None, 1.5], "n": 1}, "any"))[0] == 200


async def test_the_digest_of_an_answer_must_be_that_of_the_request(served: Served) -> None:
    await ask(served, digest="sha256:1")
    for digest in ({}, {"digest": "sha256:2"}):
        status, refused = await answer(served, **digest)
        assert (status, refused["error"]["code"]) == (409, "digest_changed")
    assert (await answer(served, digest="sha256:1"))[0] == 200


async def test_an_answer_of_a_device_that_has_not_seen_what_was_published_since_is_stale(served: Served) -> None:
    await ask(served)
    await ask(served, id="pay-2")
    events_path = "/v1/sessions/order-1/events"
    await served.call("POST", events_path, json={"events": [{"topic": "status", "data": 1}]})
    status, refused = await answer(served, expect=1)
    assert (status, refused["error"]["code"], refused["error"]["offset"]) == (409, "stale", 2)
    assert (
        "expected a device that has seen event 2 of the session, got one that has seen 1" in refused["error"]["message"]
    )
    # The events of requests do not make an answer stale.
    await answer(served, id="pay-2")
    assert (await answer(served, expect=2))[0] == 200
    assert (await answer(served, expect=0))[0] == 200  # the same answer again


async def test_an_event_that_retention_has_removed_makes_an_answer_stale_as_it_does_an_input(served: Served) -> None:
    await served.call("PUT", "/v1/sessions/order-1", json={"retention": {"events": 2}})
    for number in range(4):
        await served.publish("order-1", {"topic": "status", "data": number})
    await ask(served)
    async with asyncio.timeout(60):
        while (first := (await served.call("GET", "/v1/sessions/order-1"))[1]["first_offset"]) < 3:
            await asyncio.sleep(0.02)
    status, refused = await answer(served, expect=first - 2)
    assert (status, refused["error"]["code"], refused["error"]["offset"]) == (409, "stale", first - 1)
    assert (await answer(served, expect=4))[0] == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"id": ""},
        {"id": "é"},
        {"id": "pay 1"},
        {"id": ".."},
        {"reason": "a*"},
        {"reason": ""},
        {"response_schema": {}},
        {"choices": ["a", "a"]},
        {"choices": []},
        {"needs": 2},
        {"expires_in": 0},
        {"audience": []},
        {"by": "bob"},
        {"message": "x" * 9000},
    ],
)
async def test_an_impossible_request_is_refused(serve: Serve, changed: dict[str, Any]) -> None:
    served = await serve()
    status, refused = await served.call("POST", PATH, json={**ASKED, **changed})
    assert (status, refused["error"]["code"]) in ((400, "request_invalid"), (400, "body_invalid"))
    assert (await served.call("GET", "/v1/sessions/order-1"))[0] == 404


async def test_an_invalid_schema_or_too_much_metadata_is_refused(serve: Serve) -> None:
    served = await serve()
    body = {**ASKED, "choices": None}
    status, refused = await served.call("POST", PATH, json={**body, "response_schema": {"$ref": "http://x/"}})
    assert (status, refused["error"]["code"]) == (400, "schema_invalid")
    status, refused = await served.call("POST", PATH, json={**body, "metadata": {"x": "x" * 20_000}})
    assert (status, refused["error"]["code"]) == (413, "body_too_large")


async def test_a_request_too_large_to_be_kept_with_its_outcome_is_refused(serve: Serve) -> None:
    served = await serve()
    names = [f"{n:03}" + "é" * 253 for n in range(100)]
    body = json.dumps({**ASKED, "choices": names, "audience": names}, ensure_ascii=False).encode()
    assert 96 * 1024 < len(body) < 128 * 1024
    headers = {"Content-Type": "application/json"}
    status, refused = await served.call("POST", PATH, data=body, headers=headers)
    assert (status, refused["error"]["code"]) == (413, "body_too_large")
    assert (await served.call("GET", "/v1/sessions/order-1"))[0] == 404


async def test_a_payload_with_a_number_that_nothing_can_hold_is_refused(served: Served) -> None:
    await ask(served)
    headers = {"Content-Type": "application/json"}
    status, refused = await served.call("POST", f"{PATH}/pay-1", data=b'{"payload": 1e400}', headers=headers)
    assert (status, refused["error"]["code"]) == (400, "value_invalid")


@pytest.mark.parametrize(
    "body", [{"by": "bob"}, {"status": "expired"}, {"expect": "1"}, {"status": "cancelled", "payload": 1}]
)
async def test_an_impossible_answer_is_refused(serve: Serve, body: dict[str, Any]) -> None:
    served = await serve()
    await ask(served)
    status, refused = await served.call("POST", f"{PATH}/pay-1", json=body)
    assert (status, refused["error"]["code"]) in ((400, "request_invalid"), (400, "body_invalid"))


async def test_unknown_requests_and_sessions_are_not_found(served: Served) -> None:
    assert (await served.call("GET", PATH))[1]["error"]["code"] == "session_not_found"
    await ask(served)
    for method in ("GET", "POST", "DELETE"):
        how: dict[str, Any] = {"json": {}} if method == "POST" else {}
        status, refused = await served.call(method, f"{PATH}/other", **how)
        assert (status, refused["error"]["code"]) == (404, "request_not_found")


async def test_requests_are_removed_with_their_session(served: Served) -> None:
    await ask(served)
    await served.call("DELETE", "/v1/sessions/order-1")
    await ask(served, message="In another life?")
    assert [topic for topic, _ in await events(served)] == ["$input.requested"]
    assert (await answer(served))[0] == 200


async def test_a_closed_session_accepts_no_answer(served: Served) -> None:
    await ask(served)
    await served.call("POST", "/v1/sessions/order-1/close")
    assert (await answer(served))[1]["error"]["code"] == "session_closed"
    status, refused = await served.call("POST", PATH, json={**ASKED, "id": "pay-2"})
    assert (status, refused["error"]["code"]) == (409, "session_closed")


async def test_open_requests_are_listed_in_pages(served: Served) -> None:
    for number in range(7):
        await ask(served, id=f"pay-{number}")
    assert (await served.call("POST", "/v1/sessions/order-1%2F2/requests", json=ASKED))[0] == 200
    await answer(served, id="pay-3")
    pages: list[list[str]] = []
    after: str | None = ""
    while after is not None:
        status, page = await served.call("GET", f"{PATH}?limit=2&after={after}")
        assert status == 200
        pages.append([request["id"] for request in page["requests"]])
        after = page["after"]
    assert [len(page) for page in pages] == [2, 2, 2]
    assert sorted(id for page in pages for id in page) == [f"pay-{number}" for number in (0, 1, 2, 4, 5, 6)]
    for wrong in ("limit=0", "limit=1001", "after=%00"):
        assert (await served.call("GET", f"{PATH}?{wrong}"))[0] == 400
    assert (await served.call("GET", f"{PATH}?after=zzz"))[1] == {"requests": [], "after": None}


async def test_a_page_of_requests_ends_after_a_mebibyte_and_the_client_reads_all_pages(served: Served) -> None:
    for number in range(30):
        await ask(served, id=f"pay-{number}", message="€" * 8000, metadata={"x": "y" * 16_000})
    _, page = await served.call("GET", f"{PATH}?limit=1000")
    assert 20 < len(page["requests"]) < 30
    assert page["after"] is not None
    async with SessionClient(served.url) as client:
        assert len(await client.session("order-1").requests()) == 30
