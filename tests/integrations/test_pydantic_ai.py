"""A Pydantic AI agent's run, as a session has it."""

from __future__ import annotations

import asyncio

import pytest
from examples.fake_openai import MODEL, FakeOpenAI, Tool, Turn
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.integrations.support import events_of, messages, under
from tests.support import Served
from wakeline.integrations.pydantic_ai import Topics, publish_events
from wakeline.publisher import SessionPublisher

SCRIPT = [
    Turn(text=["Let me ", "look."], tools=[Tool("call_1", "weather", ['{"city":', '"Bern"}'])]),
    Turn(text=["It is ", "sunny."]),
]


def weather(city: str) -> dict[str, str]:
    """The weather of a city."""
    return {"city": city, "sky": "sunny"}


def broken(city: str) -> str:
    """A tool that asks the model to try again."""
    raise ModelRetry(f"there is no {city}")


def agent_of(openai: AsyncOpenAI, model: type[OpenAIChatModel] | type[OpenAIResponsesModel]) -> Agent[None, str]:
    return Agent(model(MODEL, provider=OpenAIProvider(openai_client=openai)), tools=[weather])


@pytest.mark.parametrize("model", [OpenAIChatModel, OpenAIResponsesModel])
async def test_text_tools_and_usage_are_told(
    fake: FakeOpenAI,
    openai: AsyncOpenAI,
    served: Served,
    model: type[OpenAIChatModel] | type[OpenAIResponsesModel],
) -> None:
    fake.turns.extend(SCRIPT)
    async with SessionPublisher(served.url, session="agent") as session:
        result = await agent_of(openai, model).run(
            "Weather?", event_stream_handler=publish_events(session, message="r")
        )
    assert result.output == "It is sunny."
    events = await events_of(served, "agent")
    assert list(messages(events).values()) == [("Let me look.", True), ("It is sunny.", True)]
    assert all(name.startswith("r:") for name in messages(events))
    called = {"id": "call_1", "name": "weather", "state": "called", "arguments": {"city": "Bern"}}
    returned = {**called, "state": "returned", "result": {"city": "Bern", "sky": "sunny"}}
    assert under(events, "tool") == [called, returned]
    assert [used["total_tokens"] for used in under(events, "usage")] == [11, 20]
    assert under(events, "usage")[-1] == {
        "id": "r",
        "model": MODEL,
        "input_tokens": 14,
        "output_tokens": 6,
        "total_tokens": 20,
    }


async def test_each_run_has_messages_of_its_own_also_at_once(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served
) -> None:
    fake.turns.extend([Turn(text=["same"]), Turn(text=["same"])])
    agent = agent_of(openai, OpenAIChatModel)
    async with SessionPublisher(served.url, session="agents") as session:
        handler = publish_events(session)
        await asyncio.gather(*(agent.run("?", event_stream_handler=handler) for _ in range(2)))
    assert list(messages(await events_of(served, "agents")).values()) == [("same", True)] * 2


async def test_a_tool_that_fails_is_told_as_failed(fake: FakeOpenAI, openai: AsyncOpenAI, served: Served) -> None:
    fake.turns.extend([Turn(tools=[Tool("c", "broken", ['{"city":"X"}'])]), Turn(text=["No."])])
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=openai))
    async with SessionPublisher(served.url, session="broken") as session:
        await Agent(model, tools=[broken]).run(
            "?", event_stream_handler=publish_events(session, topics=Topics(tools="calls"))
        )
    called, failed = under(await events_of(served, "broken"), "calls")
    assert (called["state"], failed["state"], failed["error"]) == ("called", "failed", "there is no X")


async def test_without_a_session_and_outside_an_activity_it_says_what_to_do(
    fake: FakeOpenAI, openai: AsyncOpenAI
) -> None:
    fake.turns.append(Turn(text=["x"]))
    with pytest.raises(LookupError, match="WakelinePlugin"):
        await agent_of(openai, OpenAIChatModel).run("?", event_stream_handler=publish_events())
