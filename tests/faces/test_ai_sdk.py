"""A chat on the AI SDK's stock transport: what the model says is on every screen, letter for letter, through all faults."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.faces.chats import DONE, END, OWN, SIGNALS, gateway, script
from tests.faces.pages import Page, page
from tests.faces.workflows import QUEUE
from tests.gateways import GatewayProcess
from tests.tokens import SECRET, token


def device(running: GatewayProcess, chat: str, version: str = "7", **variables: str) -> Any:
    return page("ai_sdk_page.mjs", version, f"{running.url}/v1/ai", chat, **variables)


def shown(state: dict[str, Any]) -> str:
    """The text of the last answer."""
    last = state["messages"][-1]
    return "".join(part["text"] for part in last["parts"] if part["type"] == "text") if last["role"] != "user" else ""


async def until_shown(on: Page, text: str) -> dict[str, Any]:
    return await on.until(lambda state: bool(state["messages"]) and shown(state) == text)


async def until_ready(on: Page) -> dict[str, Any]:
    return await on.until(lambda state: state["status"] in ("ready", "error") and bool(state["finishes"]))


WORDS = ["Tomorrow ", "it “rains”, ", "and 🌧️ then", " – perhaps –\n\n", "the sun: ☀️ ", "\\n</script>"]


@pytest.mark.parametrize("version", ["6", "7"])
async def test_an_answer_is_on_the_page_letter_for_letter(running: GatewayProcess, chat: str, version: str) -> None:
    async with device(running, chat, version) as laptop:
        await laptop.do("send", text="How is the weather?")
        for count in range(len(WORDS)):
            script(chat, ("say", WORDS[count]))
            await until_shown(laptop, "".join(WORDS[: count + 1]))
        script(chat, END)
        state = await until_ready(laptop)
    assert (state["status"], state["errors"], len(state["messages"])) == ("ready", [], 2)
    assert [part["type"] for part in state["messages"][1]["parts"]] == ["step-start", "text"]
    assert shown(state) == "".join(WORDS)


async def test_a_reload_in_the_middle_of_a_part_and_a_second_device_show_the_same(
    running: GatewayProcess, chat: str
) -> None:
    async with device(running, chat) as phone:
        async with device(running, chat) as laptop:
            await laptop.do("send", text="hello")
            script(chat, ("say", "It is "))
            await until_shown(laptop, "It is ")
        async with device(running, chat) as laptop, device(running, chat, "6") as tablet:
            pages = (laptop, phone, tablet)
            for each in pages:
                await each.do("load")
                await each.do("resume")
                await until_shown(each, "It is ")
            script(chat, ("say", "sunny."), END)
            states = [await until_ready(each) for each in pages]
            assert [shown(state) for state in states] == ["It is sunny."] * 3
            assert [state["errors"] for state in states] == [[]] * 3
            assert states[0]["messages"] == states[1]["messages"] == states[2]["messages"]
            assert [message["role"] for message in states[0]["messages"]] == ["user", "assistant"]
            assert [message["id"] for message in states[0]["messages"]]
            await phone.do("load")
            assert (await phone.do("state"))["messages"] == states[0]["messages"]
            # Nothing runs any more: a page that resumes is left as it is.
            await phone.do("resume")
            assert (await phone.until(lambda state: state["status"] == "ready"))["errors"] == []


async def test_an_answer_that_ends_while_a_page_loads_is_shown(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop, device(running, chat) as phone:
        await laptop.do("send", text="hello")
        script(chat, ("say", "It is "))
        await until_shown(laptop, "It is ")
        await phone.do("load")
        script(chat, ("say", "sunny."), END)
        await until_ready(laptop)
        await phone.do("resume")
        state = await until_ready(phone)
        assert (shown(state), state["errors"]) == ("It is sunny.", [])
        assert state["messages"] == (await laptop.do("state"))["messages"]
        await phone.do("load")
        assert shown(await phone.do("state")) == "It is sunny."


async def test_an_earlier_message_that_is_sent_again_has_its_own_answer(running: GatewayProcess, chat: str) -> None:
    async with aiohttp.ClientSession(f"{running.url}/") as http, asyncio.timeout(60):

        async def send(number: int) -> str:
            message = {"id": f"m{number}", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
            async with http.post("/v1/ai", json={"id": chat, "messages": [message]}) as answer:
                return await answer.text()

        for number in range(2):
            script(chat, ("say", f"answer {number}"), END)
            assert f"answer {number}" in await send(number)
        again = await send(0)
    assert "answer 0" in again
    assert "answer 1" not in again
    assert again.endswith("data: [DONE]\n\n")


async def test_what_a_failed_attempt_has_said_is_taken_back(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop, device(running, chat, "6") as tablet:
        await laptop.do("send", text="hello")
        call = {"id": "c1", "name": "look", "state": "called", "arguments": {"city": "Oslo"}}
        script(chat, ("publish", ("tool", call, "c1")), ("say", "It is sno"))
        await until_shown(laptop, "It is sno")
        await tablet.do("resume")
        await until_shown(tablet, "It is sno")
        script(chat, ("fail", "the model is away"), ("say", "It is "))
        state = await until_shown(laptop, "It is ")
        assert [part["type"] for part in state["messages"][-1]["parts"]] == ["step-start", "text"]
        # Version 6 has no chunk that takes parts back: its answer ends with an error, and goes on when resumed.
        assert "Resume" in (await until_ready(tablet))["errors"][0]
        await tablet.do("resume")
        script(chat, ("say", "sunny."), END)
        for each in (laptop, tablet):
            state = await each.until(lambda state: shown(state) == "It is sunny." and state["status"] == "ready")
            assert len(state["messages"][-1]["parts"]) == 2


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("approved", [True, False])
async def test_an_approval_is_asked_and_answered_on_the_page(
    running: GatewayProcess, chat: str, version: str, approved: bool
) -> None:
    call = {"id": "pay", "name": "pay", "state": "called", "arguments": {"amount": 12}}
    asking = {"reason": "approval", "id": "ask-pay", "tool_call_id": "pay", "message": "Pay 12 EUR?"}
    async with device(running, chat, version) as laptop, device(running, chat) as phone:
        await laptop.do("send", text="pay the bill")
        script(chat, ("say", "I pay. "), ("publish", ("tool", call, "pay")), ("ask", asking))
        state = await until_ready(laptop)
        tool = state["messages"][-1]["parts"][-1]
        assert (tool["type"], tool["state"], tool["input"]) == ("tool-pay", "approval-requested", {"amount": 12})
        await phone.do("load")
        await phone.do("resume")
        on_phone = await until_ready(phone)
        assert on_phone["messages"][-1]["parts"][-1]["state"] == "approval-requested"
        await laptop.do("approve", approval="ask-pay", approved=approved, reason="because")
        if approved:
            script(chat, ("publish", ("tool", {**call, "state": "returned", "result": "paid"}, "pay")))
        script(chat, ("say", "Done."), END)
        state = await laptop.until(lambda state: state["status"] == "ready" and len(state["finishes"]) == 2)
        types = [part["type"] for part in state["messages"][-1]["parts"]]
        assert "".join(part.get("text", "") for part in state["messages"][-1]["parts"]) == "I pay. Done."
        assert types == ["step-start", "text", "tool-pay", "step-start", "text"] or version == "6"
        tool = next(part for part in state["messages"][-1]["parts"] if part["type"] == "tool-pay")
        assert tool["state"] == ("output-available" if approved else "output-denied")
        assert tool.get("output") == ("paid" if approved else None)
        assert state["errors"] == []
        await phone.do("load")
        loaded = (await phone.do("state"))["messages"][-1]
        assert [part["type"] for part in loaded["parts"]][2:] == ["tool-pay", "step-start", "text"]
    status, outcome = 0, None
    async with aiohttp.ClientSession() as http, http.get(f"{running.url}/v1/sessions/{chat}/requests/ask-pay") as got:
        status, outcome = got.status, (await got.json())["outcome"]
    assert (status, outcome["payload"]) == (200, {"approved": approved, "reason": "because"})


@pytest.mark.parametrize("rule", ["update", "start"])
async def test_stop_ends_the_run_and_aborts_the_message(
    temporal: WorkflowEnvironment, tmp_path: Path, chat: str, forks: None, rule: str
) -> None:
    more = {"WAKELINE_FACES": OWN} if rule == "start" else {}
    async with gateway(temporal, tmp_path, **more) as running:
        body = json.dumps({"where": {"url": running.url}})
        async with device(running, chat, BODY=body) as laptop, device(running, chat) as phone:
            await laptop.do("send", text="hello")
            script(chat, ("say", "It is "))
            await until_shown(laptop, "It is ")
            assert await phone.do("stop") == {"status": "completed"}
            state = await until_ready(laptop)
            assert not state["finishes"][0]["isError"]
            assert (state["status"], shown(state), state["errors"]) == ("ready", "It is ", [])


async def test_a_stopped_answer_that_is_written_on_stays_out_of_the_next_one(
    running: GatewayProcess, chat: str, over: asyncio.Event
) -> None:
    async with device(running, chat) as laptop, device(running, chat) as phone:
        await laptop.do("send", text="hello")
        script(chat, ("write on", over))
        await laptop.until(lambda state: bool(state["messages"]) and shown(state).startswith("w "))
        await laptop.do("stop")
        await until_ready(laptop)
        await laptop.do("send", text="And tomorrow?")
        script(chat, ("say", "Sunny"))
        await until_shown(laptop, "Sunny")
        await phone.do("load")
        await phone.do("resume")
        await until_shown(phone, "Sunny")
        script(chat, ("say", "."), END)
        states = [await each.until(lambda state: state["status"] == "ready") for each in (laptop, phone)]
        assert [shown(state) for state in states] == ["Sunny."] * 2
        assert [state["errors"] for state in states] == [[]] * 2


@pytest.mark.parametrize("face", ["ai", "ag-ui"])
async def test_a_stop_before_the_first_message_is_told_what_to_wait_for(
    running: GatewayProcess, chat: str, face: str
) -> None:
    async with aiohttp.ClientSession(running.url) as http:
        for _ in range(2):
            async with http.post(f"/v1/{face}/{chat}/stop") as answer:
                error = (await answer.json())["error"]
            assert answer.status == 404
            assert "begins with a message" in error["hint"]
            assert "nothing has run" in error["message"]
            watched = f"/v1/sessions/{chat}/events?wait_for_start=true&from=now"  # by a page that is open already
            async with http.get(watched, headers={"Accept": "text/event-stream"}) as events:
                assert events.status == 200


async def test_a_failure_is_an_error_on_the_page(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, *[("fail", "the model is away")] * 3)
        state = await until_ready(laptop)
        assert state["status"] == "error"
        assert state["errors"]


async def test_a_killed_gateway_loses_no_letter(own: GatewayProcess, chat: str) -> None:
    async with device(own, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, ("say", "It is "))
        await until_shown(laptop, "It is ")
        await own.kill()
        state = await until_ready(laptop)  # a cut is no end
        assert state["finishes"][0]["isError"]
        script(chat, ("say", "sunny."))
        await own.start()
        await laptop.do("resume")
        await until_shown(laptop, "It is sunny.")
        script(chat, END)
        state = await laptop.until(lambda state: state["status"] == "ready")
        assert (shown(state), len(state["messages"])) == ("It is sunny.", 2)


async def test_the_end_of_a_token_is_no_end_of_the_message(
    temporal: WorkflowEnvironment, tmp_path: Path, chat: str, forks: None
) -> None:
    inputs = {"chat-*": ["message", "$start"]}
    async with (
        gateway(temporal, tmp_path, WAKELINE_TOKEN_SECRET=SECRET) as running,
        device(running, chat, TOKEN=token(sub="alice", inputs=inputs)) as laptop,
    ):
        # Its time does not begin before the page is there.
        await laptop.do("token", token=token(sub="alice", exp=time.time() + 20, inputs=inputs))
        await laptop.do("send", text="hello")
        script(chat, ("say", "It is "))
        await until_shown(laptop, "It is ")
        state = await until_ready(laptop)
        assert (state["finishes"][0]["isError"], shown(state)) == (True, "It is ")
        await laptop.do("token", token=token(sub="alice", inputs=inputs))
        await laptop.do("resume")
        script(chat, ("say", "sunny."), END)
        await laptop.until(lambda state: shown(state) == "It is sunny." and state["status"] == "ready")


async def test_each_answer_may_be_a_workflow_of_its_own(
    temporal: WorkflowEnvironment, tmp_path: Path, chat: str, forks: None
) -> None:
    async with gateway(temporal, tmp_path, WAKELINE_FACES=OWN) as running:
        body = json.dumps({"where": {"url": running.url}})
        async with device(running, chat, BODY=body) as laptop:
            await answers_of_their_own(laptop, chat)


async def answers_of_their_own(laptop: Page, chat: str) -> None:
    await laptop.do("send", text="one")
    script(chat, ("say", "1"), END)
    await until_shown(laptop, "1")
    await until_ready(laptop)
    await laptop.do("send", text="two")
    script(chat, ("say", "2"), END)
    state = await laptop.until(lambda state: len(state["finishes"]) == 2)
    assert [part["text"] for message in state["messages"] for part in message["parts"] if "text" in part] == [
        *("one", "1", "two", "2")
    ]
    await laptop.do("regenerate")
    script(chat, ("say", "II"), END)
    state = await laptop.until(lambda state: len(state["finishes"]) == 3 and shown(state) == "II")
    await laptop.do("load")
    loaded = (await laptop.do("state"))["messages"]
    assert [message["id"] for message in loaded] == [message["id"] for message in state["messages"]]


async def test_messages_may_be_signals_to_a_workflow_that_runs(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, chat: str, forks: None
) -> None:
    async with gateway(temporal, tmp_path, WAKELINE_FACES=SIGNALS) as running:
        async with device(running, chat) as early:  # a signal starts no workflow
            await early.do("send", text="is anybody there?")
            assert "session_not_found" in (await until_ready(early))["errors"][0]
        await client.start_workflow("Listener", {"url": running.url}, id=chat, task_queue=QUEUE)
        async with device(running, chat) as laptop, device(running, chat) as phone:
            await laptop.do("send", text="one")
            script(chat, ("say", "It is "))
            await until_shown(laptop, "It is ")
            await phone.do("load")
            await phone.do("resume")
            await until_shown(phone, "It is ")
            # The turn ends with the event of the kind `finish`, although neither the workflow nor its activity has ended.
            script(chat, ("say", "sunny."), DONE)
            states = [await until_ready(each) for each in (laptop, phone)]
            assert [shown(state) for state in states] == ["It is sunny."] * 2
            assert [state["errors"] for state in states] == [[]] * 2
            script(chat, END, ("say", "two"), DONE, END)
            await laptop.do("send", text="and tomorrow?")
            state = await laptop.until(lambda state: len(state["finishes"]) == 2)
            assert (shown(state), state["status"], state["errors"]) == ("two", "ready", [])
            await phone.do("load")
            assert (await phone.do("state"))["messages"] == state["messages"]


async def test_data_and_usage_of_integrations_are_parts(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop:
        await laptop.do("send", text="hello")
        usage = {"id": "m", "model": "gpt", "input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        script(
            chat,
            ("publish", ("step", {"id": "s", "name": "plan", "state": "started"}, "s")),
            ("publish", ("step", {"id": "s", "name": "plan", "state": "completed"}, "s")),
            ("publish", ("usage", usage, "m")),
            ("publish", ("status", {"state": "packed"}, None)),
            END,
        )
        state = await until_ready(laptop)
    message = state["messages"][-1]
    assert message["metadata"] == {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}}
    step, status = message["parts"][1:]
    assert (step["type"], step["data"]["state"]) == ("data-step", "completed")
    assert (status["type"], status["data"]) == ("data-status", {"state": "packed"})
