"""Workflows that say too much, in one way or another."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from wakeline.streams import WorkflowStream


@workflow.defn
class Odd:
    """Publishes under each of these topics a text of so many characters, then waits, and ends."""

    @workflow.init
    def __init__(self, items: list[tuple[str, int]]) -> None:
        self.stream = WorkflowStream()
        self.proceed = False

    @workflow.signal
    def go(self) -> None:
        self.proceed = True

    @workflow.run
    async def run(self, items: list[tuple[str, int]]) -> None:
        for topic, size in items:
            self.stream.topic(topic, type=str).publish("x" * size)
        await workflow.wait_condition(lambda: self.proceed)


@workflow.defn
class Fails:
    """Completes with a text of so many characters; or fails, of causes so deep, each with so long a message."""

    @workflow.run
    async def run(self, depth: int, size: int) -> str:
        if not depth:
            return "x" * size
        error: ApplicationError | None = None
        for level in range(depth):
            deeper = ApplicationError(f"level {level} " + "ü" * (size // 2), type="T" * 100_000 if not level else "t")
            deeper.__cause__ = error
            error = deeper
        assert error is not None
        raise error


WORKFLOWS = [Odd, Fails]
