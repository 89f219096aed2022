"""A chat on AG-UI's own client: what the model says is on every screen, letter for letter, through all faults."""

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

from tests.faces.chats import END, OWN, STOPPED, gateway, script
from tests.faces.pages import Page, page
from tests.faces.workflows import QUEUE
from tests.gateways import GatewayProcess
from tests.tokens import SECRET, token

WORDS = ["Tomorrow ", "it “rains”, ", "and 🌧️ then", " – perhaps –\n\n", "the sun: ☀️ ", "\\n</script>"]


def device(running: GatewayProcess, chat: str, **variables: str) -> Any:
    return page("ag_ui_page.mjs", f"{running.url}/v1/ag-ui/{chat}", **variables)


def said(state: dict[str, Any]) -> str:
    """What the assistant says in all messages."""
    return "".join(each.get("content") or "" for each in state["messages"] if each["role"] == "assistant")


async def until_said(on: Page, text: str) -> dict[str, Any]:
    return await on.until(lambda state: said(state) == text)


async def until_over(on: Page) -> dict[str, Any]:
    return await on.until(lambda state: not state["running"] and bool(state["types"]))


async def test_a_run_is_on_the_page_letter_for_letter(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop:
        await laptop.do("send", text="How is the weather?")
        for count in range(len(WORDS)):
            script(chat, ("say", WORDS[count]))
            await until_said(laptop, "".join(WORDS[: count + 1]))
        script(chat, END)
        state = await until_over(laptop)
    assert (state["errors"], [message["role"] for message in state["messages"]]) == ([], ["user", "assistant"])
    assert state["types"][0] == "RUN_STARTED"
    assert state["events"][-1]["outcome"] == {"type": "success"}
    assert "MESSAGES_SNAPSHOT" not in state["types"]


async def test_joining_in_the_middle_of_a_message_shows_the_same(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as phone:
        async with device(running, chat) as laptop:
            await laptop.do("send", text="hello")
            script(chat, ("say", "It is "))
            await until_said(laptop, "It is ")
        async with device(running, chat) as laptop:
            for each in (laptop, phone):
                await each.do("connect")
                state = await until_said(each, "It is ")
                assert state["types"] == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START"]
            script(chat, ("say", "sunny."), END)
            states = [await until_over(each) for each in (laptop, phone)]
            assert [said(state) for state in states] == ["It is sunny."] * 2
            assert states[0]["messages"] == states[1]["messages"]
            assert [message.get("content") for message in states[0]["messages"]] == ["hello", "It is sunny."]
            assert states[0]["errors"] == []


async def test_what_a_failed_attempt_has_said_is_taken_back(running: GatewayProcess, chat: str) -> None:
    call = {"id": "c1", "name": "look", "state": "called", "arguments": {"city": "Oslo"}}
    async with device(running, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, ("publish", ("tool", call, "c1")), ("say", "It is sno"))
        state = await until_said(laptop, "It is sno")
        assert state["messages"][1]["toolCalls"][0]["function"]["arguments"] == '{"city":"Oslo"}'
        script(chat, ("fail", "the model is away"), ("say", "It is "))
        await until_said(laptop, "It is ")
        returned = {**call, "state": "returned", "result": {"snow": False}}
        script(chat, ("publish", ("tool", returned, "c1")), ("say", "sunny."), END)
        state = await until_over(laptop)
    assert (said(state), state["errors"]) == ("It is sunny.", [])
    assert [message["role"] for message in state["messages"]] == ["user", "assistant", "assistant", "tool"]
    assert state["messages"][-1]["content"] == '{"snow":false}'


@pytest.mark.parametrize("status", ["resolved", "cancelled"])
async def test_an_interrupt_is_resumed(running: GatewayProcess, chat: str, status: str) -> None:
    asking = {"reason": "approval", "id": "ask-pay", "message": "Pay 12 EUR?", "choices": ["pay", "leave", "ask"]}
    async with device(running, chat) as laptop, device(running, chat) as phone:
        await laptop.do("send", text="pay the bill")
        script(chat, ("say", "I pay. "), ("ask", asking))
        state = await until_over(laptop)
        (interrupt,) = state["interrupts"]
        assert (interrupt["id"], interrupt["message"]) == ("ask-pay", "Pay 12 EUR?")
        assert interrupt["responseSchema"] == {"enum": ["pay", "leave", "ask"]}
        await phone.do("connect")
        assert (await until_over(phone))["interrupts"] == [interrupt]
        answer = {"interruptId": "ask-pay", "status": status} | ({"payload": "pay"} if status == "resolved" else {})
        await laptop.do("resume", resume=[answer])
        script(chat, ("say", "Done."), END)
        state = await laptop.until(lambda state: not state["running"] and state["types"].count("RUN_FINISHED") == 2)
        assert (said(state), state["errors"], state["interrupts"]) == ("I pay. Done.", [], [])
    async with aiohttp.ClientSession() as http, http.get(f"{running.url}/v1/sessions/{chat}/requests/ask-pay") as got:
        assert (await got.json())["status"] == status


async def test_a_device_that_stays_sees_the_runs_of_others(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop, device(running, chat, QUERY="?until=never") as phone:
        for count, text in enumerate(["one", "two"], 1):
            await laptop.do("send", text=text)
            script(chat, ("say", text.upper()), END)
            await laptop.until(lambda state, count=count: state["types"].count("RUN_FINISHED") == count)
            if count == 1:
                await phone.do("connect")
        state = await until_said(phone, "ONETWO")
        assert [message["role"] for message in state["messages"]] == ["user", "assistant"] * 2


async def test_a_run_that_fails_is_a_run_error(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, *[("fail", "the model is away")] * 3)
        state = await until_over(laptop)
        assert state["types"][-1] == "RUN_ERROR"


@pytest.mark.parametrize("rule", ["update", "start"])
async def test_stop_ends_the_run_on_every_device(
    temporal: WorkflowEnvironment, tmp_path: Path, chat: str, forks: None, rule: str
) -> None:
    more = {"WAKELINE_FACES": OWN} if rule == "start" else {}
    async with gateway(temporal, tmp_path, **more) as running:
        where = json.dumps({"where": {"url": running.url}})
        async with device(running, chat, PROPS=where) as laptop, device(running, chat) as phone:
            await laptop.do("send", text="hello")
            script(chat, ("say", "It is "))
            await until_said(laptop, "It is ")
            await phone.do("connect")
            await until_said(phone, "It is ")
            await phone.do("abort")
            for each in (laptop, phone):
                state = await until_over(each)
                assert state["events"][-1]["outcome"] == {"type": "cancelled"}
                assert (said(state), state["errors"]) == ("It is ", [])


async def test_a_stopped_answer_that_is_written_on_does_not_hold_the_next_one_open(
    running: GatewayProcess, chat: str, over: asyncio.Event
) -> None:
    async with device(running, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, ("write on", over))
        await laptop.until(lambda state: said(state).startswith("w "))
        await laptop.do("abort")
        before = said(await until_over(laptop))
        await laptop.do("send", text="And tomorrow?")
        script(chat, ("say", "Sunny."), END)
        state = await laptop.until(lambda state: state["types"].count("RUN_FINISHED") == 2)
        assert (said(state), state["errors"]) == (f"{before}Sunny.", [])


async def test_a_signal_may_stop_the_answer_and_leave_the_chat(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, chat: str, forks: None
) -> None:
    async with gateway(temporal, tmp_path, WAKELINE_FACES=STOPPED) as running, device(running, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, ("say", "It is "))
        await until_said(laptop, "It is ")
        await laptop.do("abort")
        state = await until_over(laptop)
        assert state["events"][-1]["outcome"] == {"type": "success"}
        first = (await client.get_workflow_handle(chat).describe()).run_id
        script(chat, ("say", "Sunny."), END)
        await laptop.do("send", text="And tomorrow?")
        state = await laptop.until(lambda state: state["types"].count("RUN_FINISHED") == 2)
        assert (said(state), state["errors"]) == ("It is Sunny.", [])
        assert (await client.get_workflow_handle(chat).describe()).run_id == first


async def test_a_killed_gateway_loses_no_letter(own: GatewayProcess, chat: str) -> None:
    async with device(own, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, ("say", "It is "))
        await until_said(laptop, "It is ")
        await own.kill()
        state = await until_over(laptop)
        assert state["errors"]  # a cut is no end
        script(chat, ("say", "sunny."), END)
        await own.start()
        await laptop.do("connect")
        state = await laptop.until(lambda state: said(state) == "It is sunny." and "RUN_FINISHED" in state["types"])


async def test_the_end_of_a_token_is_no_end_of_the_run(
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
        await until_said(laptop, "It is ")
        state = await until_over(laptop)
        assert state["errors"]  # a cut is no end
        assert {"RUN_FINISHED", "RUN_ERROR"}.isdisjoint(state["types"])
        await laptop.do("connect")
        state = await until_over(laptop)
        assert any("401" in error for error in state["errors"])  # a request with the same token is refused
        await laptop.do("token", token=token(sub="alice", inputs=inputs))
        await laptop.do("connect")
        script(chat, ("say", "sunny."), END)
        state = await laptop.until(lambda state: "RUN_FINISHED" in state["types"])
        assert said(state) == "It is sunny."
        assert [message["role"] for message in state["messages"]] == ["user", "assistant"]


async def test_runs_beside_the_turn_s_own_are_sub_agents(running: GatewayProcess, client: Client, chat: str) -> None:
    async with device(running, chat) as laptop, aiohttp.ClientSession(running.url) as http:
        await laptop.do("send", text="hello")
        script(chat, ("say", "I ask. "))
        await until_said(laptop, "I ask. ")
        other = f"{chat}-helper"
        message = {"id": "m", "options": {"where": {"url": running.url, "session": chat}}}
        await client.start_workflow("Answer", message, id=other, task_queue=QUEUE)
        async with http.post("/v1/runs", json={"workflow_id": other, "session": chat}) as answer:
            assert answer.status == 200
        script(other, ("say", "I help. "), END)
        state = await laptop.until(lambda state: "SUBAGENT_FINISHED" in state["types"])
        script(chat, END)
        state = await until_over(laptop)
    started = next(event for event in state["events"] if event["type"] == "SUBAGENT_STARTED")
    assert started["name"] == "Answer"
    helped = next(message for message in state["messages"] if message.get("content") == "I help. ")
    assert helped["subagentRunId"] == started["subagentRunId"]
    assert (state["errors"], said(state)) == ([], "I ask. I help. ")


async def test_an_event_source_resumes_by_the_cursor(running: GatewayProcess, chat: str) -> None:
    async with device(running, chat) as laptop:
        await laptop.do("send", text="hello")
        script(chat, ("say", "It is sunny."), END)
        await until_over(laptop)
    async with aiohttp.ClientSession(running.url) as http, asyncio.timeout(60):
        async with http.get(f"/v1/ag-ui/{chat}") as answer:
            lines = (await answer.text()).splitlines()
        cursor = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")][-1]
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert [event["type"] for event in events] == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
        async with http.get(f"/v1/ag-ui/{chat}", headers={"Last-Event-ID": cursor}) as answer:
            assert answer.status == 204
