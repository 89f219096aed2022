"""What is followed in the benchmark of following."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import time

    from wakeline.streams import WorkflowStream, WorkflowStreamState


@dataclass
class Said:
    """A run's input: what it carries of the run before it."""

    stream: WorkflowStreamState | None = None
    runs: int = 1
    closing: bool = False


@workflow.defn(sandboxed=False)
class Speaker:
    """Publishes when it is told to, and continues as new when its stream says that it is time."""

    @workflow.init
    def __init__(self, said: Said) -> None:
        self.stream = WorkflowStream(said.stream)
        self.closing = said.closing

    @workflow.signal
    def say(self, number: int) -> None:
        # The clock is the machine's, so that it can be compared between processes; replays show other times.
        self.stream.topic("n").publish({"number": number, "at": time.monotonic()})

    @workflow.signal
    def close(self) -> None:
        self.closing = True

    @workflow.run
    async def run(self, said: Said) -> int:
        await workflow.wait_condition(lambda: self.closing or self.stream.continue_as_new_suggested)
        if not self.closing:
            await self.stream.continue_as_new(lambda state: [Said(state, said.runs + 1, self.closing)])
        return said.runs


@workflow.defn(sandboxed=False)
class Idle:
    """Hosts a stream, or none, and waits."""

    @workflow.init
    def __init__(self, hosts: bool) -> None:
        if hosts:
            self.stream = WorkflowStream()
            self.stream.topic("status").publish("begun")

    @workflow.run
    async def run(self, hosts: bool) -> None:
        await asyncio.sleep(24 * 3600)
