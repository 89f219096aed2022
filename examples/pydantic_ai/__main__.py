"""A Pydantic AI agent that calls a tool, watched. Run it by `python -m examples.pydantic_ai`."""

from __future__ import annotations

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from examples.fake_openai import Tool, Turn
from examples.live import Live, LiveExample, main
from wakeline.integrations.pydantic_ai import publish_events
from wakeline.publisher import SessionPublisher

SCRIPT = [
    Turn(text=["Let me look."], tools=[Tool("call_1", "weather", ['{"city":', '"Bern"}'])]),
    Turn(text=["It is ", "sunny."]),
]
EXPECTED = """
[answer] "Let me look."
[answer] complete
[tool] {"id": "call_1", "name": "weather", "state": "called", "arguments": {"city": "Bern"}}
[tool] {"id": "call_1", "name": "weather", "state": "returned", "arguments": {"city": "Bern"}, "result": {"sky": "sunny"}}
[answer] "It is "
[answer] "sunny."
[answer] complete
the agent: It is sunny.
"""


def weather(city: str) -> dict[str, str]:
    """The weather of a city."""
    return {"sky": "sunny"}


async def play(live: Live) -> None:
    """Ask an agent for the weather."""
    model = OpenAIResponsesModel(live.model, provider=OpenAIProvider(openai_client=live.openai))
    agent = Agent(model, tools=[weather])
    async with live.watched("agent", ["answer", "tool"]), SessionPublisher(live.url, session="agent") as session:
        result = await agent.run("How is the weather in Bern?", event_stream_handler=publish_events(session))
    live.show("the agent:", result.output)


EXAMPLE = LiveExample("pydantic_ai", play, SCRIPT, EXPECTED)

if __name__ == "__main__":
    main(EXAMPLE)
