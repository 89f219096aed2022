"""One tiny workflow per behaviour of a stream. Apart from the tests, because the sandbox imports it anew each time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.contrib import workflow_streams as official
from temporalio.exceptions import ApplicationError, CancelledError

from wakeline import streams
from wakeline.streams.wire import PollInput, PollResult


@dataclass
class Status:
    state: str
    progress: int = 0


@workflow.defn
class Hub:
    """Hosts a stream until it is told to stop."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = streams.WorkflowStream()
        self.open = True

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: not self.open)
        return self.stream.malformed_entries

    @workflow.signal
    def close(self) -> None:
        self.open = False

    @workflow.signal
    def say(self, topic: str, values: list[Any]) -> None:
        for value in values:
            self.stream.topic(topic).publish(value)

    @workflow.signal
    def say_and_truncate(self, topic: str, values: list[Any], up_to_offset: int) -> None:
        self.say(topic, values)
        self.stream.truncate(up_to_offset)

    @workflow.update
    def truncate(self, up_to_offset: int) -> None:
        self.stream.truncate(up_to_offset)


@workflow.defn
class OfficialHub:
    """The same, with the official library."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = official.WorkflowStream()
        self.open = True

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: not self.open)

    @workflow.signal
    def close(self) -> None:
        self.open = False

    @workflow.signal
    def say(self, topic: str, values: list[Any]) -> None:
        for value in values:
            self.stream.topic(topic).publish(value)


@workflow.defn(name="OfficialHub")
class MovedHub(Hub):
    """The official host after its import was changed, with its runs still open."""

    @workflow.init
    def __init__(self) -> None:
        super().__init__()

    @workflow.run
    async def run(self) -> int:
        return await super().run()


@workflow.defn
class HubWithoutQuery(Hub):
    """A host as older libraries are: it is read by update alone."""

    @workflow.init
    def __init__(self) -> None:
        super().__init__()
        workflow.set_query_handler("__temporal_workflow_stream_poll", None)

    @workflow.run
    async def run(self) -> int:
        return await super().run()


@workflow.defn
class CleansUp:
    """Publishes twice, and three times more while it cleans up; as in Go, polls that find nothing then fail."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = streams.WorkflowStream()
        self.published, self.canceled = 0, False
        workflow.set_query_handler("__temporal_workflow_stream_poll", None)
        poll = workflow.get_update_handler("__temporal_workflow_stream_poll")
        assert poll is not None
        self.poll: Any = poll
        workflow.set_update_handler("__temporal_workflow_stream_poll", self.answer)

    async def answer(self, asked: PollInput) -> PollResult:
        await workflow.wait_condition(lambda: self.canceled or self.published > asked.from_offset)
        if self.published <= asked.from_offset:
            raise CancelledError("canceled")
        result: PollResult = await self.poll(asked)
        return result

    def publish(self) -> None:
        self.stream.topic("n").publish(self.published)
        self.published += 1

    @workflow.run
    async def run(self) -> None:
        self.publish()
        self.publish()
        try:
            await workflow.wait_condition(lambda: False)
        except asyncio.CancelledError:
            self.canceled = True
            for _ in range(3):
                await workflow.sleep(1)
                self.publish()
            await workflow.sleep(2)
            raise


@workflow.defn
class PublishAndReturn:
    @workflow.init
    def __init__(self, count: int) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self, count: int) -> None:
        numbers = self.stream.topic("number", type=int)
        for number in range(count):
            numbers.publish(number)


@workflow.defn
class Ticking:
    """Publishes by itself, with nothing from outside that wakes it."""

    @workflow.init
    def __init__(self, count: int) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self, count: int) -> None:
        for number in range(count):
            self.stream.topic("tick").publish(number)
            await workflow.sleep(0.2)


@workflow.defn
class Failing:
    @workflow.init
    def __init__(self) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        self.stream.topic("step").publish("before")
        raise ApplicationError("out of stock", non_retryable=True)


@activity.defn
async def charge(order: str) -> str:
    async with streams.WorkflowStreamClient.from_within_activity(batch_interval=timedelta(milliseconds=50)) as client:
        progress = client.topic("progress", type=str)
        progress.publish(f"charging {order}")
        progress.publish(f"charged {order}")
    return f"charge-{order}"


@workflow.defn
class Order:
    """Publishes to one topic itself and has an activity publish to another."""

    @workflow.init
    def __init__(self, order: str) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self, order: str) -> str:
        status = self.stream.topic("status", type=Status)
        status.publish(Status("received"))
        result: str = await workflow.execute_activity(charge, order, start_to_close_timeout=timedelta(seconds=30))
        status.publish(Status("complete", 100))
        return result


@dataclass
class RollerInput:
    runs_left: int
    events_per_run: int = 3
    size: int = 1
    stream_state: streams.WorkflowStreamState | None = None


@workflow.defn
class Roller:
    """Continues as new after every few events."""

    @workflow.init
    def __init__(self, input: RollerInput) -> None:
        self.stream = streams.WorkflowStream(prior_state=input.stream_state)

    @workflow.run
    async def run(self, input: RollerInput) -> None:
        for index in range(input.events_per_run):
            self.stream.topic("tick").publish([input.runs_left, index, "x" * input.size])
        # Lets a reader see this run while it is open.
        await workflow.sleep(0.01)
        if input.runs_left > 1:
            await self.stream.continue_as_new(
                lambda state: [RollerInput(input.runs_left - 1, input.events_per_run, input.size, state)]
            )


@dataclass
class CarrierInput:
    stream_state: streams.WorkflowStreamState | None = None
    closing: bool = False


@workflow.defn
class Carrier:
    """Continues as new when told to, until told to close."""

    @workflow.init
    def __init__(self, input: CarrierInput) -> None:
        self.stream = streams.WorkflowStream(prior_state=input.stream_state)
        self.rolling = False
        # Carried too: the signal may come while the run is already rolling.
        self.closing = input.closing

    @workflow.run
    async def run(self, input: CarrierInput) -> None:
        await workflow.wait_condition(lambda: self.rolling or self.closing)
        if self.rolling:
            await self.stream.continue_as_new(lambda state: [CarrierInput(state, self.closing)])

    @workflow.signal
    def roll(self) -> None:
        self.rolling = True

    @workflow.signal
    def close(self) -> None:
        self.closing = True


@workflow.defn
class CarrierWithoutQuery(Carrier):
    """A host as older libraries are, that continues as new."""

    @workflow.init
    def __init__(self, input: CarrierInput) -> None:
        super().__init__(input)
        workflow.set_query_handler("__temporal_workflow_stream_poll", None)

    @workflow.run
    async def run(self, input: CarrierInput) -> None:
        await super().run(input)

    @workflow.signal
    def say(self, values: list[Any]) -> None:
        for value in values:
            self.stream.topic("n").publish(value)


@workflow.defn
class ConstructsTwice:
    @workflow.init
    def __init__(self) -> None:
        self.stream = streams.WorkflowStream()
        try:
            streams.WorkflowStream()
        except streams.StreamMisplacedError as error:
            self.error = str(error)

    @workflow.run
    async def run(self) -> str:
        return self.error


@workflow.defn
class ConstructsLate:
    @workflow.run
    async def run(self) -> str:
        try:
            streams.WorkflowStream()
        except RuntimeError as error:
            return str(error)
        return "no error"


ALL = [
    Hub,
    OfficialHub,
    HubWithoutQuery,
    CleansUp,
    PublishAndReturn,
    Ticking,
    Failing,
    Order,
    Roller,
    Carrier,
    CarrierWithoutQuery,
    ConstructsTwice,
    ConstructsLate,
]
