"""An agent in a workflow, its words watched while the model's activities run. Run it by `python -m examples.openai_agents`."""

from __future__ import annotations

from datetime import timedelta

from agents import OpenAIProvider, set_trace_processors
from temporalio.client import Client
from temporalio.contrib.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.worker import Worker

from examples.fake_openai import Tool, Turn
from examples.live import Live, LiveExample, main
from examples.openai_agents.workflows import ForecastWorkflow
from wakeline.integrations.openai_agents import SessionModelProvider
from wakeline.integrations.temporal import WakelinePlugin

SCRIPT = [
    Turn(text=["Let me look."], tools=[Tool("call_1", "weather", ['{"city":', '"Bern"}'])]),
    Turn(text=["It is ", "sunny."]),
]
EXPECTED = """
[answer] "Let me look."
[answer] complete
[tool] {"id": "call_1", "name": "weather", "state": "called", "arguments": {"city": "Bern"}}
[answer] "It is "
[answer] "sunny."
[answer] complete
the workflow: It is sunny.
"""


async def play(live: Live) -> None:
    """Run a workflow whose agent asks the model twice."""
    assert live.temporal is not None
    set_trace_processors([])  # nothing of this is to be sent to OpenAI
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(seconds=60)),
        model_provider=SessionModelProvider(OpenAIProvider(openai_client=live.openai)),
    )
    config = live.temporal.config()
    config["plugins"] = [agents, WakelinePlugin(live.url)]
    client = Client(**config)
    async with (
        live.watched("forecast", ["answer", "tool"]),
        Worker(client, task_queue="agents", workflows=[ForecastWorkflow]),
    ):
        question = "How is the weather in Bern?"
        answer = await client.execute_workflow(
            ForecastWorkflow.run, args=[live.model, question], id="forecast", task_queue="agents"
        )
    live.show("the workflow:", answer)


EXAMPLE = LiveExample("openai_agents", play, SCRIPT, EXPECTED, needs_temporal=True)

if __name__ == "__main__":
    main(EXAMPLE)
