"""A chat workflow, and the activity that streams a model's output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

from wakeline.streams import WorkflowStream, WorkflowStreamClient


@dataclass
class ChatInput:
    """A question, and whether to wait until somebody has seen the whole answer."""

    prompt: str
    wait_for_ack: bool


async def model(prompt: str) -> AsyncIterator[str]:
    """Stands for a language model; breaks off on the first attempt."""
    for number, token in enumerate(["Durable ", "execution ", "outlives ", "its ", "processes."]):
        if number == 2 and activity.info().attempt == 1:
            raise ConnectionError("the model hung up")
        yield token
        await asyncio.sleep(0.03)


@activity.defn
async def stream_completion(prompt: str) -> str:
    """Publish the answer token by token; return it whole."""
    attempt = activity.info().attempt
    answer = ""
    async with WorkflowStreamClient.from_within_activity(batch_interval=timedelta(milliseconds=200)) as stream:
        if attempt > 1:
            # What the attempt before has published is stale, and its readers must know at once.
            stream.topic("retry", type=int).publish(attempt, force_flush=True)
        deltas = stream.topic("delta", type=str)
        async for token in model(prompt):
            deltas.publish(token)
            answer += token
        stream.topic("close").publish(None)
    return answer


@workflow.defn
class ChatWorkflow:
    """Hosts the stream of one answer."""

    @workflow.init
    def __init__(self, input: ChatInput) -> None:
        self.stream = WorkflowStream()
        self.acknowledged = False

    @workflow.run
    async def run(self, input: ChatInput) -> str:
        """Have the question answered."""
        answer: str = await workflow.execute_activity(
            stream_completion,
            input.prompt,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100)),
        )
        if input.wait_for_ack:
            await workflow.wait_condition(lambda: self.acknowledged, timeout=timedelta(seconds=30))
        return f"{answer}; acknowledged: {self.acknowledged}"

    @workflow.signal
    def acknowledge(self) -> None:
        """Somebody has the whole answer."""
        self.acknowledged = True
