"""Workflows that publish through Temporal: one tiny one for each way."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from temporalio import activity, workflow

from wakeline.streams import WorkflowStream, WorkflowStreamClient


@workflow.defn
class Steps:
    """Takes a step for each signal, and ends when it is told."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()
        self.steps = 0
        self.done = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.done)
        return self.steps

    @workflow.signal
    def step(self) -> None:
        self.steps += 1
        self.stream.topic("step", type=int).publish(self.steps)

    @workflow.signal
    def end(self) -> None:
        self.done = True

    @workflow.query
    def count(self) -> int:
        return self.steps


@workflow.defn(sandboxed=False)
class StepsOutsideTheSandbox(Steps):
    """The same, without a sandbox."""

    @workflow.init
    def __init__(self) -> None:
        super().__init__()

    @workflow.run
    async def run(self) -> int:
        return await super().run()


@workflow.defn
class Asks:
    """Has an activity publish to another workflow's stream."""

    @workflow.run
    async def run(self, name: str, argument: Any) -> Any:
        return await workflow.execute_activity(name, argument, start_to_close_timeout=timedelta(seconds=30))


@workflow.defn
class Cheats:
    """Does what a workflow may not, and tells what came of it."""

    @workflow.run
    async def run(self) -> str:
        try:
            return str(datetime.now())
        except Exception as error:  # noqa: BLE001 - its name is the answer
            return type(error).__name__


@activity.defn
async def publish(workflow_id: str) -> None:
    async with WorkflowStreamClient.create(activity.client(), workflow_id) as stream:
        stream.topic("note", type=str).publish("from an activity")


class Threaded:
    """Activities without a loop."""

    def __init__(self, client: Any) -> None:
        self.client = client

    @activity.defn
    def publish_in_a_thread(self, _: str) -> None:
        with WorkflowStreamClient.from_within_activity_sync(self.client) as stream:
            stream.topic("note", type=str).publish("from a thread")
