"""The events of a Pydantic AI agent's run, published as they happen.

result = await agent.run("…", event_stream_handler=publish_events(session))
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from wakeline.integrations.extras import needs
from wakeline.integrations.output import ModelOutput, ToolCall, Topics

with needs("pydantic-ai"):
    from pydantic_ai import RunContext
    from pydantic_ai.agent import EventStreamHandler
    from pydantic_ai.messages import (
        AgentStreamEvent,
        FunctionToolCallEvent,
        FunctionToolResultEvent,
        PartDeltaEvent,
        PartEndEvent,
        PartStartEvent,
        TextPart,
        TextPartDelta,
    )

from wakeline.integrations.activity_session import current_session

if TYPE_CHECKING:
    from wakeline.publisher import SessionPublisher

__all__ = ["Topics", "publish_events"]


def publish_events(
    session: SessionPublisher | None = None, *, message: str | None = None, topics: Topics | None = None
) -> EventStreamHandler[Any]:
    """Return an `event_stream_handler=` that publishes text as it streams, tools and usage.

    Args:
        session: The publisher of the session; default that of the running activity, which requires a `WakelinePlugin`.
        message: The beginning of the messages' ids; default the run's id. The number of the model's request and that of
            the part of its response follow, so that each text has a message of its own. In an activity that is retried,
            give the activity's id, so that the ids are the same in each attempt.
        topics: What is published, and where.
    """
    runs: dict[str | None, _Run] = {}

    async def handle(context: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        # The agent calls it for each step of a run, and may have several runs at once. A tool is called in one step and
        # returns in another, so the state is kept per run.
        run = runs.get(context.run_id)
        if run is None:
            publisher = session or await current_session()
            run = runs[context.run_id] = _Run(ModelOutput(publisher, topics or Topics()))
        name = f"{message or context.run_id}:{context.run_step}"
        async for event in events:
            await run.take(event, name)
        await run.count(message or context.run_id or name, context)

    return handle


class _Run:
    """The output of one run of an agent so far."""

    def __init__(self, output: ModelOutput) -> None:
        self._output = output
        self._counted = 0

    async def take(self, event: AgentStreamEvent, name: str) -> None:
        output = self._output
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            await output.say(f"{name}:{event.index}", event.part.content)
        elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            await output.say(f"{name}:{event.index}", event.delta.content_delta)
        elif isinstance(event, PartEndEvent) and isinstance(event.part, TextPart):
            # A part that restarted replaces its first text.
            await output.complete(f"{name}:{event.index}", event.part.content)
        elif isinstance(event, FunctionToolCallEvent):
            await output.call(ToolCall(event.part.tool_call_id, event.part.tool_name, event.part.args))
        elif isinstance(event, FunctionToolResultEvent):
            part = event.part
            failed = getattr(part, "outcome", "failed") != "success"
            outcome = {"error": part.content} if failed else {"result": part.content}
            await output.settle(part.tool_call_id, part.tool_name or "", **outcome)

    async def count(self, id: str, context: RunContext[Any]) -> None:
        """Publish the usage if it has grown; it is known from the step after the model's answer on."""
        usage = context.usage
        if usage.total_tokens != self._counted:
            self._counted = usage.total_tokens
            await self._output.used(
                id, model=context.model.model_name, input=usage.input_tokens, output=usage.output_tokens
            )
