"""The output of the integrations is parts of messages, with no setting."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from examples.fake_openai import MODEL, FakeOpenAI, Tool, Turn
from openai import AsyncOpenAI

from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings
from wakeline.integrations.openai import publish_chat, publish_response
from wakeline.integrations.output import ModelOutput, ToolCall, Topics
from wakeline.publisher import SessionPublisher

USAGE = {"inputTokens": 7, "outputTokens": 4, "totalTokens": 11}


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_what_openai_s_api_streams_is_text_and_tool_calls(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served, api: str
) -> None:
    fake.turns.append(Turn(text=["Dur", "able “.”"], tools=[Tool("call_1", "weather", ['{"city": ', '"Bern"}'])]))
    async with SessionPublisher(served.url, session="s") as session:
        if api == "chat":
            stream = await openai.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "?"}],
                stream=True,
                stream_options={"include_usage": True},
            )
            await publish_chat(stream, session)
        else:
            await publish_response(await openai.responses.create(model=MODEL, input="?", stream=True), session)
    status, loaded = await served.call("GET", "/v1/ai/s/messages")
    assert status == 200
    (message,) = loaded["messages"]
    assert message["metadata"] == {"usage": USAGE}
    text, tool = message["parts"][1:]
    assert (text["type"], text["text"]) == ("text", "Durable “.”")
    assert (tool["type"], tool["toolCallId"], tool["input"]) == ("tool-weather", "call_1", {"city": "Bern"})


async def test_what_all_integrations_publish_is_shown(served: Served) -> None:
    """`ModelOutput` is what Pydantic AI, LangChain and OpenAI Agents publish through."""
    async with SessionPublisher(served.url, session="s") as session:
        output = ModelOutput(session, Topics())
        await output.step("s1", "plan", "started")
        await output.say("m1", "Let me look.")
        await output.complete("m1", "Let me look.")
        await output.call(ToolCall("c1", "weather", '{"city": "Bern"}'))
        await output.settle("c1", "weather", result={"sky": "clear"})
        await output.call(ToolCall("c2", "weather", '{"city": "?"}'))
        await output.settle("c2", "weather", error="no such city")
        await output.step("s1", "plan", "completed")
    _, loaded = await served.call("GET", "/v1/ai/s/messages")
    step, text, returned, failed = loaded["messages"][0]["parts"][1:]
    assert (step["type"], step["data"]["state"]) == ("data-step", "completed")
    assert text["text"] == "Let me look."
    assert (returned["state"], returned["output"]) == ("output-available", {"sky": "clear"})
    assert (failed["state"], failed["errorText"]) == ("output-error", "no such city")
    async with served.http.get("/v1/ag-ui/s") as answer:
        assert '"role":"tool","toolCallId":"c1","content":"{\\"sky\\":\\"clear\\"}"' in await answer.text()


async def test_topics_of_other_publishers_are_named_in_the_settings(tmp_path: Path) -> None:
    faces = {"own": {"topics": {"thought": "reasoning", "secret.*": "hidden", "call": "tool"}}}
    settings = {"data": str(tmp_path), "port": 0, "no_auth": True, "faces": faces}
    async with gateway(msgspec.convert(settings, Settings)) as url, Served(url) as served:
        async with SessionPublisher(url, session="s") as session:
            await session.topic("thought", append="text").message("t").append("hm")
            await session.topic("secret.key").publish("x")
            await session.topic("call").publish({"id": "c", "name": "look", "state": "called"}, key="c")
            await session.topic("other").publish({"a": 1})
        _, loaded = await served.call("GET", "/v1/ai/s/messages")
    assert [part["type"] for part in loaded["messages"][0]["parts"]] == [
        *("step-start", "reasoning", "tool-look", "data-other")
    ]
