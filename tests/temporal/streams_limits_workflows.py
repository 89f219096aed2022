"""Workflows near the limits of a run. Apart from the tests, because the sandbox imports it anew each time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client

from wakeline import streams


@dataclass
class EnduringInput:
    closing: bool = False
    runs: int = 1
    stream_state: streams.WorkflowStreamState | None = None


@workflow.defn
class Enduring:
    """Continues as new when its stream says that it is time."""

    @workflow.init
    def __init__(self, input: EnduringInput) -> None:
        self.stream = streams.WorkflowStream(prior_state=input.stream_state)
        self.closing = input.closing

    @workflow.run
    async def run(self, input: EnduringInput) -> int:
        await workflow.wait_condition(lambda: self.closing or self.stream.continue_as_new_suggested)
        if not self.closing:
            await self.stream.continue_as_new(lambda state: [EnduringInput(self.closing, input.runs + 1, state)])
        return input.runs

    @workflow.update
    def close(self) -> int:
        self.closing = True
        return self.stream.retained_bytes

    @workflow.signal
    def finish(self) -> None:
        self.closing = True


class Steps:
    """Activities that are `def` functions, with the client they publish through."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    def count_to(self, number: int) -> int:
        with streams.WorkflowStreamClient.from_within_activity_sync(
            self._client, batch_interval=timedelta(milliseconds=50), max_buffered_items=5
        ) as stream:
            numbers = stream.topic("number", type=int)
            for value in range(number // 2):
                numbers.publish(value)
            stream.flush()
            for value in range(number // 2, number):
                numbers.publish(value)
        return number

    @activity.defn
    def add_up(self, count: int) -> int:
        """Reads, in a thread without a loop, what the workflow has published."""
        with streams.WorkflowStreamClient.from_within_activity_sync(self._client) as stream:
            items = stream.subscribe("number", result_type=int)
            return sum(next(items).data for _ in range(count))


@workflow.defn
class Counting:
    @workflow.init
    def __init__(self) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self) -> int:
        counted: int = await workflow.execute_activity_method(
            Steps.count_to, 40, start_to_close_timeout=timedelta(seconds=30)
        )
        return counted


@workflow.defn
class Adding:
    @workflow.init
    def __init__(self, numbers: list[int]) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self, numbers: list[int]) -> int:
        for number in numbers:
            self.stream.topic("number").publish(number)
        total: int = await workflow.execute_activity_method(
            Steps.add_up, len(numbers), start_to_close_timeout=timedelta(seconds=30)
        )
        return total
