"""A workflow that ends as it is told, with a stream of its own or without."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from wakeline.streams import WorkflowStream

FIRST = [0, 1, 2, 3]
LAST = [4, 5]


@workflow.defn
class Ends:
    """Says its first words, waits to be told, says its last words and ends, if it is one that ends by itself."""

    @workflow.init
    def __init__(self, status: str, hosts: bool) -> None:
        self.stream = WorkflowStream() if hosts else None
        self.told = False
        self.numbers: list[int] = []

    @workflow.signal
    def end(self) -> None:
        self.told = True

    @workflow.query
    def said(self) -> list[int]:
        return self.numbers

    def say(self, numbers: list[int]) -> None:
        self.numbers += numbers
        if self.stream is not None:
            for number in numbers:
                self.stream.topic("said", type=int).publish(number)

    @workflow.run
    async def run(self, status: str, hosts: bool) -> str:
        self.say(FIRST)
        try:
            await workflow.wait_condition(lambda: self.told)
        except asyncio.CancelledError:
            self.say(LAST)
            raise
        self.say(LAST)
        if status == "failed":
            raise ApplicationError("the order failed") from ApplicationError("no stock left", type="OutOfStock")
        if status in ("terminated", "timed_out"):
            await workflow.wait_condition(lambda: False)
        return "done"


WORKFLOWS = [Ends]
