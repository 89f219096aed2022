"""Workflows that ask people for input."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from temporalio.contrib.workflow_streams import WorkflowStream as OfficialStream

    from wakeline.publisher import SessionPublisher
    from wakeline.streams import RequestOutcome, RequestsState, WorkflowRequests, WorkflowStream


@workflow.defn
class Pays:
    """Asks whether to pay, and ends with the outcome."""

    @workflow.init
    def __init__(self, asked: dict[str, Any]) -> None:
        self.stream = WorkflowStream()
        self.requests = WorkflowRequests(self.stream)
        self.waits = bool(asked.pop("waits", False))

    @workflow.signal
    def go_on(self) -> None:
        self.waits = False

    @workflow.run
    async def run(self, asked: dict[str, Any]) -> RequestOutcome:
        self.stream.topic("status").publish("asking")
        await workflow.wait_condition(lambda: not self.waits)
        seconds, cancels = asked.pop("expires", None), asked.pop("cancels", False)
        if cancels:
            asyncio.get_running_loop().call_later(0.1, self.requests.cancel, asked["id"])
        outcome = await self.requests.ask(
            "approval", **asked, expires=None if seconds is None else timedelta(seconds=seconds)
        )
        self.stream.topic("status").publish("answered")
        return outcome


@workflow.defn
class PaysInTheNextRun:
    """Asks, continues as new when it is told to, and waits for the outcome there."""

    @workflow.init
    def __init__(self, carried: RequestsState | None = None) -> None:
        self.requests = WorkflowRequests(WorkflowStream(), carried)
        self.continues = False

    @workflow.signal
    def go_on(self) -> None:
        self.continues = True

    @workflow.run
    async def run(self, carried: RequestsState | None = None) -> RequestOutcome:
        asking = asyncio.create_task(self.requests.ask("approval", id="pay-1"))
        if carried is None:
            await workflow.wait_condition(lambda: self.continues)
            workflow.continue_as_new(args=[self.requests.carry()])
        return await asking


@workflow.defn
class AsksInEveryRun:
    """Asks several requests one after the other, and continues as new; the last run asks for those outcomes again."""

    @workflow.init
    def __init__(self, ids: list[str], carried: RequestsState | None = None) -> None:
        self.requests = WorkflowRequests(WorkflowStream(), carried)

    @workflow.run
    async def run(self, ids: list[str], carried: RequestsState | None = None) -> list[str]:
        if carried is None:
            for id in ids:
                await self.requests.ask("approval", id=id)
            pending = asyncio.create_task(self.requests.ask("approval", id="pending"))
            await workflow.wait_condition(lambda: "pending" in self.requests.carry().outcomes)
            pending.cancel()
            workflow.continue_as_new(args=[ids, self.requests.carry()])
        seen = []
        for id in ["pending", *ids]:
            try:
                seen.append(f"{id}: {(await self.requests.ask('approval', id=id)).status}")
            except ApplicationError as error:
                seen.append(f"{id}: {error.type}")
        return seen


@workflow.defn
class AsksOnTheOfficialStream:
    """Knows nothing of Wakeline but the topic and the signal."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = OfficialStream()
        self.outcomes: list[dict[str, Any]] = []

    @workflow.signal
    def wakeline_answer(self, outcome: dict[str, Any]) -> None:
        self.outcomes.append(outcome)

    @workflow.update
    def decide(self, outcome: dict[str, Any]) -> str:
        self.outcomes.append(outcome)
        return "decided"

    @workflow.run
    async def run(self) -> list[dict[str, Any]]:
        ask = self.stream.topic("wakeline.request")
        ask.publish({"id": "pay-1", "reason": "approval"})
        ask.publish({"id": "pay-2", "reason": "approval", "deliver": {"kind": "update", "name": "decide"}})
        ask.publish({"id": "pay-3", "reason": 7})
        await workflow.wait_condition(lambda: len(self.outcomes) == 3)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.outcomes


@activity.defn
async def asks(url: str) -> Any:
    async with SessionPublisher.from_within_activity(url) as session:
        outcome = await (await session.request("approval", id="pay-1", message="Pay?")).outcome()
        return outcome and outcome.payload


@workflow.defn
class PaysByAnActivity:
    """Asks in an activity, which runs again in the next run of the chain, under another id."""

    def __init__(self) -> None:
        self.continues = False

    @workflow.signal
    def go_on(self) -> None:
        self.continues = True

    @workflow.run
    async def run(self, url: str, turn: int = 0) -> Any:
        asking = workflow.start_activity(
            asks,
            url,
            activity_id=f"ask-{turn}",
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        if turn == 0:
            await workflow.wait_condition(lambda: self.continues or asking.done())
        if self.continues:
            workflow.continue_as_new(args=[url, turn + 1])
        return await asking


WORKFLOWS = [PaysByAnActivity, Pays, PaysInTheNextRun, AsksInEveryRun, AsksOnTheOfficialStream]
