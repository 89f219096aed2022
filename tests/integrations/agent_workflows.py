"""A workflow that runs an agent of the OpenAI Agents SDK: nothing in it knows of sessions."""

from __future__ import annotations

from agents import Agent, Runner, function_tool
from temporalio import workflow


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@workflow.defn
class AgentWorkflow:
    """Asks the agent."""

    @workflow.run
    async def run(self, prompt: str) -> str:
        agent = Agent(name="forecaster", instructions="Answer briefly.", model="fake-1", tools=[weather])
        return str((await Runner.run(agent, prompt)).final_output)
