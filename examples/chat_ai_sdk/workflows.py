"""A chat that answers, and that pays a bill once somebody has approved it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from wakeline.publisher import SessionPublisher


async def model(text: str, attempt: int) -> AsyncIterator[str]:
    """Stand for a language model; break off in the first attempt at the weather."""
    words = [f"You said: {text}"]
    if "count" in text:
        words = [f"{number} " for number in range(1, 301)]
    if "weather" in text:
        words = ["It is ", "snow"] if attempt == 1 else ["It is ", "sunny ", "in ", "Oslo."]
    for word in words:
        await asyncio.sleep(0.1)
        yield word
    if "weather" in text and attempt == 1:
        raise ConnectionError("the model hung up")


class Assistant:
    """Answers messages, and publishes the answers to a gateway.

    Args:
        url: The gateway.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @activity.defn
    async def answer(self, message: dict[str, Any]) -> None:
        """Stream an answer token by token."""
        async with SessionPublisher.from_within_activity(self._url) as session:
            session.heartbeat_every(timedelta(seconds=1))  # an activity learns by heartbeats that it is stopped
            if "pay" in message["text"]:
                await self._pay(session, message["turn"])
                return
            text = session.topic("answer", append="text").message(message["turn"])
            async for word in model(message["text"], activity.info().attempt):
                await text.append(word)
            await text.complete()

    async def _pay(self, session: SessionPublisher, turn: str) -> None:
        """Call a tool that needs an approval."""
        tools = session.topic("tool", keyed=True)
        id = f"{turn}-pay"
        call = {"id": id, "name": "pay", "arguments": {"amount": 12, "to": "ACME"}}
        await tools.publish({**call, "state": "called"}, key=id)
        request = await session.request(
            "approval",
            id=f"{turn}-ask",
            tool_call_id=id,
            message="Pay 12 EUR to ACME?",
            choices=["approve", "deny"],  # the gateway refuses any other answer
        )
        outcome = await request.outcome()
        approved = outcome is not None and outcome.status == "resolved" and outcome.payload == "approve"
        if approved:
            await tools.publish({**call, "state": "returned", "result": {"paid": 12}}, key=id)
        text = session.topic("answer", append="text").message(turn)
        await text.append("The bill is paid." if approved else "I have paid nothing.")
        await text.complete()


@workflow.defn
class ChatWorkflow:
    """Holds a chat: each message is an update, which completes with its answer."""

    @workflow.init
    def __init__(self) -> None:
        self._answer: workflow.ActivityHandle[None] | None = None

    @workflow.run
    async def run(self) -> None:
        """Run until the history is long, and continue as new."""
        await workflow.wait_condition(
            lambda: workflow.info().is_continue_as_new_suggested() and workflow.all_handlers_finished()
        )
        workflow.continue_as_new()

    @workflow.update
    async def message(self, message: dict[str, Any]) -> None:
        """Answer a message; an answer that is stopped ends with what it has said."""
        self._answer = workflow.start_activity_method(
            Assistant.answer,
            message,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=timedelta(seconds=30),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        try:
            await self._answer
        except ActivityError as error:
            if not is_cancelled_exception(error):
                raise

    @workflow.signal
    def stop(self) -> None:
        """Stop the answer; the chat goes on."""
        if self._answer is not None:
            self._answer.cancel()
