"""A workflow before and after its code was changed."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from wakeline.streams import WorkflowStream


@workflow.defn(name="Deployed")
class BeforeTheDeploy:
    """Says which attempt it is, and fails."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        attempt = workflow.info().attempt
        self.stream.topic("attempt", type=int).publish(attempt)
        raise ApplicationError(f"attempt {attempt}")


@workflow.defn(name="Deployed")
class AfterTheDeploy:
    """Sleeps first, so that what ran before cannot be replayed with it, and then waits."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        await asyncio.sleep(0.01)
        self.stream.topic("attempt", type=int).publish(workflow.info().attempt)
        await workflow.wait_condition(lambda: False)
