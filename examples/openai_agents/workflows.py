"""A workflow that runs an agent. Nothing in it knows that somebody watches."""

from __future__ import annotations

from agents import Agent, Runner, function_tool
from temporalio import workflow


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@workflow.defn
class ForecastWorkflow:
    """Asks an agent."""

    @workflow.run
    async def run(self, model: str, question: str) -> str:
        """Have the question answered."""
        agent = Agent(name="forecaster", instructions="Answer briefly.", model=model, tools=[weather])
        return str((await Runner.run(agent, question)).final_output)
