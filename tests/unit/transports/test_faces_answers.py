"""Answers to requests for input through the protocols of frontends count as those of the API do, and none is dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import Served
from tests.unit.conftest import Serve
from wakeline.gateway.rules import Face, InputRules, Start
from wakeline.gateway.sessions import input_requests

PATH = "/v1/sessions/c/requests"


@pytest.fixture
async def served(serve: Serve) -> Served:
    rule = Face(kind="signal", name="say")
    return await serve(temporal="127.0.0.1:1", faces={"chat": rule})  # no workflow is needed to answer


async def ask(served: Served, id: str, **more: Any) -> None:
    code, answer = await served.call("POST", PATH, json={"id": id, "reason": "approval", **more})
    assert code == 200, answer


async def say(served: Served, **part: Any) -> tuple[int, Any]:
    """Continue a chat whose last message has a tool call; its answer is streamed, or an error."""
    messages = [{"id": "m", "role": "assistant", "parts": [{"type": "tool-x", **part}]}]
    async with served.http.post("/v1/ai", json={"id": "c", "messages": messages}) as answer:
        is_json = answer.content_type == "application/json"
        return answer.status, await answer.json() if is_json else None


async def returned(served: Served, call: str, output: Any) -> tuple[int, Any]:
    return await say(served, toolCallId=call, state="output-available", output=output)


async def approved(served: Served, id: str) -> tuple[int, Any]:
    return await say(served, toolCallId=id, state="approval-responded", approval={"id": id, "approved": True})


async def status(served: Served, id: str) -> Any:
    return (await served.call("GET", f"{PATH}/{id}"))[1]["status"]


async def resume(served: Served, id: str) -> tuple[int, Any]:
    resumed = [{"interruptId": id, "status": "resolved", "payload": "yes"}]
    body = {"threadId": "c", "runId": "r", "state": {}, "messages": [], "tools": [], "context": [], "resume": resumed}
    async with served.http.post("/v1/ag-ui/c", json=body | {"forwardedProps": {}}) as answer:
        return answer.status, await answer.json() if answer.content_type == "application/json" else None


async def test_a_request_with_a_digest_is_answered_by_those_who_send_it(served: Served) -> None:
    await ask(served, "q", choices=["yes", "no"], digest="sha256:what-was-shown")
    for answer in (await returned(served, "q", "yes"), await approved(served, "q"), await resume(served, "q")):
        assert (answer[0], answer[1]["error"]["code"]) == (409, "digest_changed")
    assert await status(served, "q") == "open"
    given = {"payload": "yes", "digest": "sha256:what-was-shown"}
    assert (await served.call("POST", f"{PATH}/q", json=given))[0] == 200
    await returned(served, "q", "yes")  # a page repeats its answers, which is no error


async def test_a_request_beyond_the_first_page_is_answered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_requests, "_PAGE_BYTES", 0)  # one request a page
    for number in range(6):
        await ask(served, f"q{number}", tool_call_id=f"call{number}" if number % 2 else None)
    for number in range(6):
        await returned(served, f"call{number}" if number % 2 else f"q{number}", "yes")
    assert {await status(served, f"q{number}") for number in range(6)} == {"resolved"}


async def test_a_call_s_request_may_have_the_id_of_a_closed_one(served: Served) -> None:
    await ask(served, "x")
    await returned(served, "x", "first")
    await ask(served, "y", tool_call_id="x")
    await returned(served, "x", "second")
    assert await status(served, "y") == "resolved"


async def test_an_answer_to_an_unknown_request_is_reported(served: Served) -> None:
    await ask(served, "q")
    for answer in (await approved(served, "other"), await resume(served, "other")):
        assert (answer[0], answer[1]["error"]["code"]) == (404, "request_not_found")


async def test_a_message_that_is_sent_again_after_its_turn_was_removed_is_answered(serve: Serve) -> None:
    start = {"chat": Start(sessions=("c",), workflow_type="Chat", task_queue="chats")}
    rule = Face(kind="update", name="message", start="chat")
    served = await serve(temporal="127.0.0.1:1", inputs=InputRules(start=start), faces={"chat": rule})
    sent = {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}
    async with served.http.post("/v1/ai", json=sent) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
    await served.publish("c", {"topic": "t"}, {"topic": "t"})
    await served.call("PUT", "/v1/sessions/c", json={"retention": {"events": 1}})
    async with asyncio.timeout(60):
        while (await served.call("GET", "/v1/sessions/c"))[1]["first_offset"] < 2:
            await asyncio.sleep(0.05)
        async with served.http.post("/v1/ai", json=sent) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (410, "offset_gone")
