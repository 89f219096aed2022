"""The order workflow and the activity that charges the card."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow

from wakeline.streams import WorkflowStream, WorkflowStreamClient


@dataclass
class Status:
    """An event of the topic `status`."""

    kind: str
    order: str


@dataclass
class Progress:
    """An event of the topic `progress`."""

    message: str


@activity.defn
async def charge_card(order: str) -> str:
    """Charge the card, telling of it on the way."""
    async with WorkflowStreamClient.from_within_activity(batch_interval=timedelta(milliseconds=200)) as stream:
        progress = stream.topic("progress", type=Progress)
        progress.publish(Progress("charging card..."))
        progress.publish(Progress("card charged"))
    # All of it has arrived here, so that what the workflow publishes next comes after it.
    return f"charge-{order}"


@workflow.defn
class OrderWorkflow:
    """Hosts the stream and publishes the order's status to it."""

    @workflow.init
    def __init__(self, order: str) -> None:
        self.stream = WorkflowStream()
        self.status = self.stream.topic("status", type=Status)
        self.progress = self.stream.topic("progress", type=Progress)

    @workflow.run
    async def run(self, order: str) -> str:
        """Take the order, charge the card, ship."""
        self.status.publish(Status("received", order))
        charge: str = await workflow.execute_activity(charge_card, order, start_to_close_timeout=timedelta(seconds=30))
        self.status.publish(Status("shipped", order))
        self.progress.publish(Progress(f"charge id: {charge}"))
        self.status.publish(Status("complete", order))
        # Nothing to wait for: what is published here is read after the run has closed.
        return charge
