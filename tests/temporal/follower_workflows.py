"""Small workflows that end in every way, with a stream and without."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from temporalio.contrib.workflow_streams import WorkflowStream as OfficialStream

    from wakeline.streams import WorkflowStream, WorkflowStreamClient, WorkflowStreamState


@activity.defn
async def stream_numbers(count: int) -> None:
    async with WorkflowStreamClient.from_within_activity(batch_interval=timedelta(milliseconds=20)) as stream:
        numbers = stream.topic("number", type=int)
        for n in range(count):
            numbers.publish(n)
            await asyncio.sleep(0.002)


@workflow.defn
class Talks:
    """Publishes a few events, streams some from an activity, then ends as it is told."""

    @workflow.init
    def __init__(self, end: str, count: int) -> None:
        self.stream = WorkflowStream()
        self.proceed = False

    @workflow.signal
    def go(self) -> None:
        self.proceed = True

    @workflow.run
    async def run(self, end: str, count: int) -> str:
        status = self.stream.topic("status", type=str)
        status.publish("begun")
        if count:
            await workflow.execute_activity(stream_numbers, count, start_to_close_timeout=timedelta(seconds=30))
        if end == "waits":
            await workflow.wait_condition(lambda: self.proceed)
        status.publish("last words")
        if end == "fails":
            raise ApplicationError("no stock left", type="OutOfStock")
        if end == "hangs":
            await workflow.wait_condition(lambda: False)
        return "done"


@workflow.defn
class Official:
    """Hosts the official stream: what is followed need not know Wakeline."""

    @workflow.init
    def __init__(self, count: int) -> None:
        self.stream = OfficialStream()

    @workflow.run
    async def run(self, count: int) -> None:
        numbers = self.stream.topic("number", type=int)
        for n in range(count):
            numbers.publish(n)
        self.stream.topic("bytes", type=bytes).publish(b"\x00\xff")


@workflow.defn
class Halves:
    """Says what no UTF-8 can say: half an emoji, in what it publishes and under what."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()
        self.proceed = False

    @workflow.signal
    def go(self) -> None:
        self.proceed = True

    @workflow.run
    async def run(self) -> None:
        self.stream.topic("word").publish({"text": "\ud83d"})
        self.stream.topic("half\ud83d").publish("whole")
        await workflow.wait_condition(lambda: self.proceed)


@workflow.defn
class Silent:
    """Hosts no stream at all."""

    @workflow.run
    async def run(self, seconds: float, fails: bool = False) -> None:
        await asyncio.sleep(seconds)
        if fails:
            raise ApplicationError("no stock left", type="OutOfStock")


@dataclass
class Round:
    number: int
    last: int
    state: WorkflowStreamState | None = None


@workflow.defn
class Rounds:
    """Publishes three events a run and continues as new, with its stream."""

    @workflow.init
    def __init__(self, at: Round) -> None:
        self.stream = WorkflowStream(at.state)

    @workflow.run
    async def run(self, at: Round) -> None:
        for n in range(3):
            self.stream.topic("number", type=int).publish(at.number * 3 + n)
        await asyncio.sleep(0.05)
        if at.number < at.last:
            await self.stream.continue_as_new(lambda state: [Round(at.number + 1, at.last, state)])


@workflow.defn
class GoesNowhere:
    """Once told to go, carries its stream over to a run that no worker takes."""

    @workflow.init
    def __init__(self, state: WorkflowStreamState | None = None, patience: float | None = None) -> None:
        self.stream = WorkflowStream(state)
        self.patience = None if patience is None else timedelta(seconds=patience)
        self.going = False

    @workflow.signal
    def go(self) -> None:
        self.going = True

    @workflow.run
    async def run(self, state: WorkflowStreamState | None = None, patience: float | None = None) -> None:
        await workflow.wait_condition(lambda: self.going)
        self.stream.topic("n", type=int).publish(1)
        workflow.continue_as_new(self.stream.get_state(), task_queue="of-nobody", run_timeout=self.patience)


@workflow.defn
class Retried:
    """Fails its first two runs, each after one event; the retry policy starts it again."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        attempt = workflow.info().attempt
        self.stream.topic("attempt", type=int).publish(attempt)
        if attempt < 3:
            raise ApplicationError(f"attempt {attempt}")


@workflow.defn
class Truncates:
    """Publishes ten events, keeps the last three, and waits."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()
        self.proceed = False

    @workflow.signal
    def go(self) -> None:
        self.proceed = True

    @workflow.run
    async def run(self) -> None:
        for n in range(10):
            self.stream.topic("number", type=int).publish(n)
        self.stream.truncate(7)
        await workflow.wait_condition(lambda: self.proceed)


WORKFLOWS = [Talks, Official, Halves, Silent, Rounds, GoesNowhere, Retried, Truncates]
