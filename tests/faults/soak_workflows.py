"""A workflow that does as its plan says: numbered events, continuations, failed attempts, and an end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from wakeline.streams import WorkflowStream, WorkflowStreamState

PAUSE = 0.7


@dataclass
class Plan:
    """What one execution chain does.

    Attributes:
        end: How it ends, if nobody ends it before: `completed` or `failed`; with anything else it goes on until somebody does.
        hosts: Whether it hosts a stream.
        carries: Whether it carries the stream over when it continues as new.
        rounds: Of how many runs it consists by continue-as-new.
        failures: How many attempts at the last of them fail.
        events: How many events each run publishes.
        burst: How many it publishes at once, before a pause.
        at: The round.
        state: The stream that was carried over.
    """

    end: str
    hosts: bool
    carries: bool
    rounds: int
    failures: int
    events: int
    burst: int
    at: int = 0
    state: WorkflowStreamState | None = None


@workflow.defn
class Soaks:
    """Does as its plan says."""

    @workflow.init
    def __init__(self, plan: Plan) -> None:
        self.stream = WorkflowStream(plan.state) if plan.hosts else None
        self.said = 0

    async def say(self, burst: int) -> None:
        if self.stream is not None:
            self.stream.topic("n").publish({"run_id": workflow.info().run_id, "n": self.said})
        self.said += 1
        if self.said % burst == 0:
            await asyncio.sleep(PAUSE)

    @workflow.run
    async def run(self, plan: Plan) -> int:
        for _ in range(plan.events):
            await self.say(plan.burst)
        if plan.at + 1 < plan.rounds:
            further = replace(plan, at=plan.at + 1, state=None)
            if self.stream is not None and plan.carries:
                await self.stream.continue_as_new(lambda state: [replace(further, state=state)])
            workflow.continue_as_new(further)
        if workflow.info().attempt <= plan.failures:
            raise ApplicationError(f"attempt {workflow.info().attempt} has failed", type="TryAgain")
        if plan.end == "failed":
            raise ApplicationError("no stock left", type="OutOfStock", non_retryable=True)
        while plan.end != "completed":
            await self.say(plan.burst)
        return self.said


WORKFLOWS = [Soaks]
