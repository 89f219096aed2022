"""A chat on TanStack AI's transport for Durable Streams: what is published is on every screen, letter for letter."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from temporalio.testing import WorkflowEnvironment

from tests.durable import CLOSED, JSON
from tests.faces.chats import gateway, script
from tests.faces.pages import Page, page
from tests.gateways import GatewayProcess
from tests.tokens import SECRET, token

WORDS = ["Tomorrow ", "it “rains”, ", "and 🌧️ then", " – perhaps –\r\n\n", "the sun: ☀️ ", "\\n</script>\u2028"]


@pytest.fixture
async def stream(running: GatewayProcess, chat: str) -> str:
    """The chat's name; its stream was created before its workflow."""
    return await created(running, chat)


async def created(running: GatewayProcess, chat: str) -> str:
    assert await call("PUT", running, chat, JSON) == 201
    return chat


async def call(method: str, running: GatewayProcess, chat: str, headers: Any) -> int:
    """Return the status of a call of the stream."""
    async with (
        aiohttp.ClientSession(running.url, headers=headers) as http,
        http.request(method, f"/v1/stream/{chat}") as answer,
    ):
        return answer.status


def device(running: GatewayProcess, chat: str, **variables: str) -> Any:
    return page("tanstack_ai_page.mjs", running.url, chat, **variables)


def publish(chat: str, *chunks: dict[str, Any]) -> None:
    """Have the model's activity publish chunks."""
    script(chat, *[("publish", ("chunk", chunk, None)) for chunk in chunks])


def begin(chat: str, answer: str = "a1") -> None:
    started = {"type": "RUN_STARTED", "threadId": chat, "runId": answer}
    publish(chat, started, {"type": "TEXT_MESSAGE_START", "messageId": answer, "role": "assistant"})


def say(chat: str, text: str, answer: str = "a1") -> None:
    publish(chat, {"type": "TEXT_MESSAGE_CONTENT", "messageId": answer, "delta": text})


def end(chat: str, answer: str = "a1") -> None:
    finished = {"type": "RUN_FINISHED", "threadId": chat, "runId": answer}
    publish(chat, {"type": "TEXT_MESSAGE_END", "messageId": answer}, finished)
    script(chat, ("return", None))


def echo(chat: str, message: dict[str, Any]) -> None:
    """Have the user's message published for the other devices."""
    publish(
        chat,
        {"type": "TEXT_MESSAGE_START", "messageId": message["id"], "role": "user"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": message["id"], "delta": message["parts"][0]["content"]},
        {"type": "TEXT_MESSAGE_END", "messageId": message["id"]},
    )


def shown(state: dict[str, Any]) -> list[tuple[str, str]]:
    """The role and the text of each message."""
    return [
        (message["role"], "".join(part["content"] for part in message["parts"] if part["type"] == "text"))
        for message in state["messages"]
    ]


def ids(state: dict[str, Any]) -> list[str]:
    return [message["id"] for message in state["messages"]]


async def until_shown(on: Page, *messages: tuple[str, str]) -> dict[str, Any]:
    return await on.until(lambda state: shown(state) == list(messages))


async def until_ready(on: Page) -> dict[str, Any]:
    return await on.until(lambda state: state["status"] == "ready" and "RUN_FINISHED" in state["types"])


async def ask(on: Page, chat: str, text: str) -> None:
    """Send a message, which is published for the other devices, and begin its answer."""
    await on.do("send", text=text)
    state = await on.until(lambda state: shown(state)[-1:] == [("user", text)])
    echo(chat, state["messages"][-1])
    begin(chat)


async def test_an_answer_is_on_the_page_letter_for_letter(running: GatewayProcess, stream: str) -> None:
    async with device(running, stream) as laptop:
        await ask(laptop, stream, "How is the weather?")
        for count in range(len(WORDS)):
            say(stream, WORDS[count])
            said = "".join(WORDS[: count + 1])
            state = await until_shown(laptop, ("user", "How is the weather?"), ("assistant", said))
            assert (state["status"], state["loading"]) == ("streaming", True)
        end(stream)
        state = await until_ready(laptop)
    assert (state["errors"], state["loading"], state["generating"]) == ([], False, False)
    assert shown(state) == [("user", "How is the weather?"), ("assistant", "".join(WORDS))]


@pytest.mark.parametrize("snapshot", ["true", "false"])
async def test_a_reload_in_the_middle_and_a_second_device_show_the_same(
    running: GatewayProcess, stream: str, snapshot: str
) -> None:
    async with device(running, stream, SNAPSHOT=snapshot) as phone:
        async with device(running, stream, SNAPSHOT=snapshot) as laptop:
            if snapshot == "true":  # it replaces all messages on the page
                await laptop.until(lambda state: "MESSAGES_SNAPSHOT" in state["types"])
            await ask(laptop, stream, "hello")
            say(stream, "It “is” ")
            await until_shown(laptop, ("user", "hello"), ("assistant", "It “is” "))
        async with device(running, stream, SNAPSHOT=snapshot) as laptop:
            for each in (laptop, phone):
                await until_shown(each, ("user", "hello"), ("assistant", "It “is” "))
            if snapshot == "false":  # a snapshot has messages, and no runs
                assert (await laptop.do("state"))["generating"]
            say(stream, "sunny. ☀️")
            end(stream)
            states = [await until_ready(each) for each in (laptop, phone)]
    assert [shown(state) for state in states] == [[("user", "hello"), ("assistant", "It “is” sunny. ☀️")]] * 2
    assert ids(states[0]) == ids(states[1])
    assert [state["errors"] for state in states] == [[], []]


async def test_a_page_that_a_server_rendered_goes_on_from_its_offset(running: GatewayProcess, stream: str) -> None:
    async with device(running, stream) as laptop:
        await ask(laptop, stream, "hello")
        say(stream, "It is ")
        await until_shown(laptop, ("user", "hello"), ("assistant", "It is "))
    async with device(running, stream, RENDERED="true") as laptop:
        state = await laptop.do("state")
        assert (shown(state), state["types"]) == ([("user", "hello"), ("assistant", "It is ")], [])
        say(stream, "sunny.")
        end(stream)
        state = await until_ready(laptop)
    assert shown(state) == [("user", "hello"), ("assistant", "It is sunny.")]
    assert state["types"] == ["TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED"]


async def test_what_a_failed_attempt_has_said_is_taken_back(running: GatewayProcess, stream: str) -> None:
    async with device(running, stream) as laptop, device(running, stream) as phone:
        await ask(laptop, stream, "hello")
        say(stream, "It is sno")
        state = await until_shown(laptop, ("user", "hello"), ("assistant", "It is sno"))
        script(stream, ("fail", "the model is away"))
        publish(stream, {"type": "MESSAGES_SNAPSHOT", "messages": state["messages"][:1]})
        begin(stream)
        say(stream, "It is sunny.")
        end(stream)
        for each in (laptop, phone):
            state = await until_ready(each)
            assert (shown(state), state["errors"]) == ([("user", "hello"), ("assistant", "It is sunny.")], [])
    async with device(running, stream) as late:
        await until_shown(late, ("user", "hello"), ("assistant", "It is sunny."))


async def test_a_killed_gateway_loses_no_letter(own: GatewayProcess, chat: str) -> None:
    stream = await created(own, chat)
    async with device(own, stream) as laptop, device(own, stream) as phone:
        await ask(laptop, stream, "hello")
        say(stream, WORDS[0])
        for each in (laptop, phone):
            await until_shown(each, ("user", "hello"), ("assistant", WORDS[0]))
        for count in range(1, len(WORDS)):
            if count % 2:
                await own.kill()
            say(stream, WORDS[count])
            if count % 2:
                await own.start()
            for each in (laptop, phone):
                await until_shown(each, ("user", "hello"), ("assistant", "".join(WORDS[: count + 1])))
        end(stream)
        states = [await until_ready(each) for each in (laptop, phone)]
    assert [state["types"].count("TEXT_MESSAGE_CONTENT") for state in states] == [len(WORDS) + 1] * 2
    assert [state["errors"] for state in states] == [[], []]
    assert min(state["cuts"] for state in states) >= len(WORDS) // 2


async def test_the_stock_transport_reports_a_cut_and_goes_on_when_it_subscribes(own: GatewayProcess, chat: str) -> None:
    stream = await created(own, chat)
    async with device(own, stream, STOCK="true") as laptop:
        await ask(laptop, stream, "hello")
        say(stream, "It is ")
        await until_shown(laptop, ("user", "hello"), ("assistant", "It is "))
        await own.kill()
        state = await laptop.until(lambda state: state["connection"] == "error")
        assert state["errors"]
        say(stream, "sunny.")
        await own.start()
        await laptop.do("subscribe")
        end(stream)
        state = await until_ready(laptop)
    assert shown(state) == [("user", "hello"), ("assistant", "It is sunny.")]


async def test_a_gateway_that_stops_and_starts_is_no_error_for_the_stock_transport(
    own: GatewayProcess, chat: str
) -> None:
    stream = await created(own, chat)
    async with device(own, stream, STOCK="true") as laptop:
        await ask(laptop, stream, "hello")
        say(stream, "It is ")
        await until_shown(laptop, ("user", "hello"), ("assistant", "It is "))
        assert await own.stop() == 0
        say(stream, "sunny.")
        await own.start()
        end(stream)
        state = await until_ready(laptop)
    assert (shown(state), state["errors"]) == ([("user", "hello"), ("assistant", "It is sunny.")], [])


async def test_a_closed_stream_is_a_clean_end(running: GatewayProcess, stream: str) -> None:
    async with device(running, stream, STOCK="true") as laptop:
        await ask(laptop, stream, "hello")
        say(stream, "It is sunny.")
        end(stream)
        await until_ready(laptop)
        assert await call("POST", running, stream, CLOSED) == 204
        state = await laptop.until(lambda state: state["connection"] == "disconnected")
        assert (state["status"], state["errors"]) == ("ready", [])
    # Version 0.0.9 of the transport passes over all chunks of a stream that is closed when it subscribes.
    async with device(running, stream, STOCK="true", RENDERED="true") as late:
        state = await late.until(lambda state: state["connection"] == "disconnected")
        assert (shown(state), state["errors"]) == ([("user", "hello"), ("assistant", "It is sunny.")], [])


async def test_stop_of_the_page_ends_nothing_but_its_own_wait(running: GatewayProcess, stream: str) -> None:
    async with device(running, stream) as laptop:
        await ask(laptop, stream, "hello")
        say(stream, "It is ")
        await until_shown(laptop, ("user", "hello"), ("assistant", "It is "))
        await laptop.do("stop")
        assert (await laptop.do("state"))["status"] == "ready"
        say(stream, "sunny.")
        end(stream)
        await until_shown(laptop, ("user", "hello"), ("assistant", "It is sunny."))


async def test_an_answer_that_a_server_of_the_package_writes(running: GatewayProcess, chat: str) -> None:
    assert await call("PUT", running, chat, JSON) == 201
    async with device(running, chat, SAID=json.dumps(WORDS)) as laptop, device(running, chat) as phone:
        await laptop.do("send", text="hello")
        for each in (laptop, phone):
            state = await until_ready(each)
            assert (shown(state), state["errors"]) == ([("user", "hello"), ("assistant", "".join(WORDS))], [])
    async with aiohttp.ClientSession(running.url) as http, http.get(f"/v1/stream/{chat}") as answer:
        chunks = await answer.json()
    assert [chunk["delta"] for chunk in chunks if chunk["type"] == "TEXT_MESSAGE_CONTENT"] == ["hello", *WORDS]
    assert not [chunk for chunk in chunks if "content" in chunk]


async def test_a_page_goes_on_with_another_token(temporal: WorkflowEnvironment, tmp_path: Path, chat: str) -> None:
    inputs = ["message", "$start.chat"]
    may: dict[str, Any] = {"sessions": [chat], "topics": ["chunk"], "allow": ["read", "input"], "inputs": inputs}
    owner = {"Authorization": f"Bearer {token(sub='owner', exp=time.time() + 600)}"}
    async with gateway(temporal, tmp_path, WAKELINE_TOKEN_SECRET=SECRET) as running:
        assert await call("PUT", running, chat, {**JSON, **owner}) == 201
        tokens = [token(sub="ann", exp=time.time() + seconds, **may) for seconds in (15, 600)]
        async with device(running, chat, TOKENS=json.dumps(tokens)) as laptop:
            await ask(laptop, chat, "hello")
            say(chat, "It is ")
            await until_shown(laptop, ("user", "hello"), ("assistant", "It is "))
            await laptop.until(lambda state: state["cuts"] > 0)
            say(chat, "sunny.")
            end(chat)
            state = await until_ready(laptop)
    assert (shown(state), state["errors"]) == ([("user", "hello"), ("assistant", "It is sunny.")], [])
