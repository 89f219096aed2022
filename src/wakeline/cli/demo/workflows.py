"""The three workflows that publish."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

from wakeline.streams import WorkflowStream

ORDER_STEPS = (
    ("received", "We have your order"),
    ("paid", "The card was charged"),
    ("picking", "Somebody walks the aisles"),
    ("packed", "Sealed and labelled"),
    ("shipped", "The courier has it"),
    ("nearby", "Two stops before you"),
    ("delivered", "It is at your door"),
)
STAGES = ("extract", "transform", "load", "verify")


@workflow.defn
class OrderWorkflow:
    """Publishes the steps of an order from the workflow; somebody has to approve its payment."""

    @workflow.init
    def __init__(self, seconds: float) -> None:
        """Host the stream."""
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, seconds: float) -> str:
        """Go through the steps in about `seconds`, and the time that an answer takes."""
        status = self.stream.topic("status", type=dict[str, Any])
        for state, detail in ORDER_STEPS:
            if state == "paid" and not await self._is_approved():
                status.publish({"state": "cancelled", "detail": "Somebody rejected the payment"})
                return "cancelled"
            status.publish({"state": state, "detail": detail})
            await asyncio.sleep(seconds / len(ORDER_STEPS))
        return "delivered"

    async def _is_approved(self) -> bool:
        approved: bool = await workflow.execute_activity(
            "approve_payment",
            result_type=bool,
            start_to_close_timeout=timedelta(days=1),
            heartbeat_timeout=timedelta(seconds=30),
        )
        return approved


@workflow.defn
class AgentWorkflow:
    """Has an activity stream an answer, token by token."""

    @workflow.init
    def __init__(self, seconds: float) -> None:
        """Host the stream."""
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, seconds: float) -> int:
        """Stream for about `seconds`; return the number of tokens."""
        tokens: int = await workflow.execute_activity(
            "stream_answer",
            seconds,
            result_type=int,
            start_to_close_timeout=timedelta(minutes=10),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        self.stream.topic("done", type=dict[str, Any]).publish({"tokens": tokens})
        return tokens


@workflow.defn
class PipelineWorkflow:
    """Runs stages and publishes the progress of each."""

    @workflow.init
    def __init__(self, seconds: float) -> None:
        """Host the stream."""
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, seconds: float) -> str:
        """Run every stage in about `seconds`."""
        stage = self.stream.topic("stage", type=dict[str, Any])
        progress = self.stream.topic("progress", type=dict[str, Any])
        for name in STAGES:
            stage.publish({"stage": name, "status": "running"})
            for percent in range(10, 101, 10):
                await asyncio.sleep(seconds / len(STAGES) / 10)
                progress.publish({"stage": name, "percent": percent})
            stage.publish({"stage": name, "status": "done"})
        return "verified"
