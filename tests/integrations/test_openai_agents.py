"""Agents of the OpenAI Agents SDK in workflows: what the model says is in the session while its activity runs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from agents import ModelProvider, OpenAIProvider, set_trace_processors
from examples.fake_openai import FakeOpenAI, Tool, Turn
from openai import AsyncOpenAI
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.contrib.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.worker import Worker

from tests.integrations.agent_workflows import AgentWorkflow
from tests.integrations.support import counting, events_of, messages, under
from tests.support import Served
from wakeline.integrations.openai_agents import SessionModelProvider, Topics
from wakeline.integrations.temporal import WakelinePlugin

PATIENCE = 60
WEATHER = Tool("call_1", "weather", ['{"city":', '"Bern"}'])


@pytest.fixture(autouse=True)
def untraced() -> None:
    """The SDK would send traces to OpenAI."""
    set_trace_processors([])


@asynccontextmanager
async def worker(client: Client, models: ModelProvider, *plugins: WakelinePlugin) -> AsyncIterator[tuple[Client, str]]:
    """A worker whose agents ask these models; gives a client of its kind, and its task queue."""
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=3),
        ),
        model_provider=models,
    )
    plugged = client.config()
    plugged["plugins"] = [agents, *plugins]
    plugged_client = Client(**plugged)
    queue = f"agents-{uuid.uuid4().hex[:8]}"
    async with Worker(plugged_client, task_queue=queue, workflows=[AgentWorkflow]):
        yield plugged_client, queue


def models_of(openai: AsyncOpenAI, *, responses: bool = True) -> SessionModelProvider:
    return SessionModelProvider(OpenAIProvider(openai_client=openai, use_responses=responses))


@pytest.mark.parametrize("responses", [True, False], ids=["responses", "chat"])
async def test_an_agent_s_words_tools_and_activities_are_told(
    client: Client, served: Served, fake: FakeOpenAI, openai: AsyncOpenAI, responses: bool
) -> None:
    fake.turns.extend([Turn(text=["I ", "look."], tools=[WEATHER]), Turn(text=["It is ", "sunny."])])
    async with worker(client, models_of(openai, responses=responses), WakelinePlugin(served.url)) as (plugged, queue):
        id = f"agent-{uuid.uuid4().hex[:8]}"
        async with asyncio.timeout(PATIENCE):
            answer = await plugged.execute_workflow(AgentWorkflow.run, "Weather?", id=id, task_queue=queue)
    assert answer == "It is sunny."
    assert all(request["stream"] for request in fake.requests)
    events = await events_of(served, id)
    assert list(messages(events).values()) == [("I look.", True), ("It is sunny.", True)]
    (called,) = under(events, "tool")
    assert called == {"id": "call_1", "name": "weather", "state": "called", "arguments": {"city": "Bern"}}
    # Chat completions tell the usage only where the agent's settings ask for it.
    assert [used["total_tokens"] for used in under(events, "usage")] == ([11, 9] if responses else [])
    assert [told["state"] for told in under(events, "activity")] == ["started", "completed"] * 2


async def test_a_device_reads_while_the_model_s_activity_runs(
    client: Client, served: Served, fake: FakeOpenAI, openai: AsyncOpenAI
) -> None:
    more = asyncio.Event()
    fake.turns.append(Turn(text=["one ", "two"], hold={1: more}))
    async with worker(client, models_of(openai), WakelinePlugin(served.url)) as (plugged, queue):
        async with asyncio.timeout(PATIENCE):
            handle = await plugged.start_workflow(AgentWorkflow.run, "?", id="live-agent", task_queue=queue)
            while "one " not in under(await events_of(served, "live-agent"), "answer"):
                await asyncio.sleep(0.01)
            assert "two" not in under(await events_of(served, "live-agent"), "answer")
            more.set()
            assert await handle.result() == "one two"


async def test_what_an_attempt_said_that_broke_off_is_taken_back(
    client: Client, served: Served, fake: FakeOpenAI, openai: AsyncOpenAI
) -> None:
    fake.turns.extend([Turn(text=["wrong ", "start"], cut=1), Turn(text=["right"])])
    async with worker(client, models_of(openai), WakelinePlugin(served.url)) as (plugged, queue):
        async with asyncio.timeout(PATIENCE):
            answer = await plugged.execute_workflow(AgentWorkflow.run, "?", id="broke-off", task_queue=queue)
    assert answer == "right"
    events = await events_of(served, "broke-off")
    assert under(events, "answer") == ["wrong ", "right", None]
    assert list(messages(events).values()) == [("right", True)]
    states = [(told["attempt"], told["state"]) for told in under(counting(events), "activity")]
    assert states == [(1, "started"), (1, "retrying"), (2, "started"), (2, "completed")]


async def test_without_the_plugin_it_opens_a_session_for_itself(
    client: Client, served: Served, fake: FakeOpenAI, openai: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAKELINE_URL", served.url)
    fake.turns.append(Turn(text=["alone"]))
    models = SessionModelProvider(OpenAIProvider(openai_client=openai), topics=Topics(text="said", usage=None))
    async with worker(client, models) as (plugged, queue), asyncio.timeout(PATIENCE):
        await plugged.execute_workflow(AgentWorkflow.run, "?", id="alone", task_queue=queue)
    events = await events_of(served, "alone")
    assert {event["topic"] for event in events} == {"said"}
    assert list(messages(events, "said").values()) == [("alone", True)]
