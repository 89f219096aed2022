"""Requests for input and tokens: who may ask and answer, and that `by` is the token's user."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from tests.unit.requests.test_requests_http import PATH, answer, ask
from wakeline.gateway.sessions import InputRequest, InputRequests

ASKER = bearer(sub="worker", allow=["publish"], exp=4_000_000_000)


def person(sub: str = "alice", **changed: Any) -> dict[str, str]:
    return bearer(sub=sub, **{"allow": ["read", "input"], "inputs": ["$answer.approval"], **changed})


@pytest.fixture
async def asked(serve: Serve) -> Served:
    served = await serve(token_secret=SECRET)
    await ask(served, headers=ASKER)
    return served


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({}, 200),
        ({"inputs": ["$answer.*"]}, 200),
        ({"inputs": {"order-*": ["$answer.approval"]}}, 200),
        ({"inputs": ["*"]}, 403),
        ({"inputs": ["approval"]}, 403),
        ({"inputs": ["$answer.form"]}, 403),
        ({"inputs": {"chat-*": ["$answer.*"]}}, 403),
        ({"inputs": None}, 403),
        ({"allow": ["read", "publish"]}, 403),
        ({"sessions": ["chat-*"]}, 404),
    ],
)
async def test_a_token_answers_only_the_reasons_that_it_names(
    asked: Served, claims: dict[str, Any], status: int
) -> None:
    assert (await answer(asked, headers=person(**claims)))[0] == status


@pytest.mark.parametrize(
    ("method", "path", "claims", "status"),
    [
        ("POST", "", {"allow": ["publish"], "topics": ["status"]}, 403),
        ("POST", "", {"allow": ["publish"], "topics": ["$input.*"]}, 200),
        ("POST", "", {"allow": ["read", "input"]}, 403),
        ("GET", "", {"allow": ["read"], "topics": ["status"]}, 403),
        ("GET", "", {"allow": ["read"]}, 200),
        ("GET", "/pay-1", {"allow": ["publish"]}, 403),
        ("DELETE", "/pay-1", {"allow": ["read", "input"]}, 403),
        ("DELETE", "/pay-1", {"allow": ["publish"]}, 200),
    ],
)
async def test_asking_publishes_and_listing_reads(
    asked: Served, method: str, path: str, claims: dict[str, Any], status: int
) -> None:
    how: dict[str, Any] = {"json": {"id": "pay-2", "reason": "approval"}} if method == "POST" else {}
    assert (await asked.call(method, PATH + path, headers=bearer(**claims), **how))[0] == status


async def test_the_user_of_the_token_has_answered(asked: Served) -> None:
    _, answered = await answer(asked, headers=person())
    assert answered["outcome"]["by"] == "alice"
    status, refused = await answer(asked, headers=person("bob"))  # the same payload of somebody else
    assert (status, refused["error"]["outcome"]["by"]) == (409, "alice")


async def test_only_the_audience_answers(asked: Served) -> None:
    await ask(asked, id="pay-2", audience=["bob", "role:manager"], headers=ASKER)
    for roles in ([], ["clerk"]):
        status, refused = await answer(asked, id="pay-2", headers=person(roles=roles))
        assert (status, refused["error"]["code"]) == (403, "not_allowed")
    assert (await answer(asked, id="pay-2", headers=person(roles=["manager"])))[0] == 200
    await ask(asked, id="pay-3", audience=["bob"], headers=ASKER)
    assert (await answer(asked, id="pay-3", headers=person("bob")))[0] == 200


async def test_a_refusal_describes_a_request_only_to_a_token_that_reads(asked: Served) -> None:
    await ask(asked, id="pay-2", reason="salary", audience=["bob"], headers=ASKER)
    for allow in (["input"], ["read", "input"]):
        for inputs, secret in ((["$answer.approval"], "salary"), (["$answer.*"], "bob")):
            token = person(allow=allow, inputs=inputs)
            for path, body in (("", {"payload": "approve"}), ("/claim", {"device": "phone"})):
                status, refused = await asked.call("POST", f"{PATH}/pay-2{path}", json=body, headers=token)
                assert (status, refused["error"]["code"]) == (403, "not_allowed")
                assert (secret in str(refused)) == ("read" in allow)


async def test_a_token_is_checked_on_the_request_that_the_answer_decides(
    asked: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, seen = InputRequests.find, 0

    async def changing(records: InputRequests, session: str, id: str) -> InputRequest | None:
        nonlocal seen
        seen += 1  # the id is forgotten and used again after the first read
        found = await find(records, session, id)
        assert found is not None
        return found if seen == 1 else replace(found, requested=replace(found.requested, reason="salary"))

    monkeypatch.setattr(InputRequests, "find", changing)
    assert (await answer(asked, headers=person()))[0] == 200
    assert seen == 1


async def test_a_user_whose_name_is_that_of_a_role_does_not_have_it(asked: Served) -> None:
    await ask(asked, id="pay-2", audience=["role:manager"], headers=ASKER)
    assert (await answer(asked, id="pay-2", headers=person("role:manager")))[0] == 403


async def test_several_people_give_the_same_answer(asked: Served) -> None:
    await ask(asked, id="pay-2", needs=2, headers=ASKER)
    status, first = await answer(asked, id="pay-2", headers=person(), device="phone")
    assert (status, first["status"], len(first["answers"])) == (200, "open", 1)
    assert await answer(asked, id="pay-2", headers=person()) == (200, first)  # alice again is not another person
    assert (await answer(asked, "reject", "pay-2", headers=person()))[1]["error"]["code"] == "already_resolved"
    assert (await answer(asked, "reject", "pay-2", headers=person("carol")))[1]["status"] == "open"
    status, last = await answer(asked, id="pay-2", headers=person("bob"))
    assert last["outcome"] == {
        "request": "pay-2",
        "status": "resolved",
        "payload": "approve",
        "by": "bob",
        "answers": [{"by": "alice", "device": "phone"}, {"by": "bob"}],
    }
    assert (await answer(asked, id="pay-2", headers=person()))[0] == 200
    assert (await answer(asked, "reject", "pay-2", headers=person("carol")))[0] == 409
    _, page = await asked.call("GET", "/v1/sessions/order-1/events?topics=$input.*", headers=person())
    told = [event["topic"] for event in page["events"]]
    assert told == ["$input.requested"] * 2 + ["$input.answered"] * 2 + ["$input.resolved"]


async def test_an_outcome_is_delivered_only_by_a_gateway_with_temporal(asked: Served) -> None:
    body = {"id": "pay-2", "reason": "approval", "deliver": {"name": "decide"}}
    status, refused = await asked.call("POST", PATH, json=body, headers=ASKER)
    assert (status, refused["error"]["code"]) == (503, "temporal_unavailable")
    body["deliver"] = {"name": "__temporal_poll"}
    assert (await asked.call("POST", PATH, json=body, headers=ASKER))[0] == 400


@pytest.mark.parametrize("deliver", [{}, {"name": "wakeline_answer"}, {"kind": "update"}])
async def test_no_request_over_http_is_delivered_by_the_signal_for_streams(
    asked: Served, deliver: dict[str, Any]
) -> None:
    headers = bearer(allow=["publish", "input"], inputs=["*", "wakeline_answer"])
    body = {"id": "pay-2", "reason": "approval", "deliver": deliver}
    status, refused = await asked.call("POST", PATH, json=body, headers=headers)
    assert (status, refused["error"]["code"]) == (400, "request_invalid")
    assert "wakeline_answer" in refused["error"]["message"]


async def test_many_different_answers_leave_room_for_the_outcome(asked: Served) -> None:
    await ask(asked, id="pay-2", needs=2, choices=None, headers=ASKER)
    status, refused = await answer(asked, "x" * 5_000, "pay-2", headers=person())
    assert (status, refused["error"]["code"]) == (413, "body_too_large")
    statuses = [(await answer(asked, f"{n:03}" * 1_300, "pay-2", headers=person(f"user-{n}")))[0] for n in range(60)]
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 413}
    last = await answer(asked, "000" * 1_300, "pay-2", headers=person("bob"))
    assert (last[0], last[1]["status"]) == (200, "resolved")
    assert (await asked.call("GET", f"{PATH}/pay-2", headers=person()))[1]["outcome"] == last[1]["outcome"]


async def test_an_input_cannot_take_the_key_of_an_answer(asked: Served) -> None:
    body = {"id": "wakeline-request-1", "kind": "signal", "name": "say"}
    status, refused = await asked.call("POST", "/v1/sessions/order-1/inputs", json=body, headers=person(inputs=["say"]))
    assert (status, refused["error"]["code"]) == (400, "request_invalid")
