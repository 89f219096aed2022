"""Standalone activities are waited for by a limited number of calls, and described at intervals beyond that."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.activity.v1 import ActivityExecutionInfo
from temporalio.api.enums.v1 import ActivityExecutionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeActivityExecutionRequest,
    DescribeActivityExecutionResponse,
    PollActivityExecutionRequest,
    PollActivityExecutionResponse,
)

from tests.unit.following.followed import run, steps
from wakeline.gateway.following.following import Limits
from wakeline.gateway.following.watching import standalone
from wakeline.gateway.following.watching.standalone import activity_ended

PAUSED = ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_PAUSED
RUNNING = ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_RUNNING
TERMINATED = ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_TERMINATED


class Activities:
    """Temporal: answers waiting calls at their end, and describes each activity as the test says."""

    namespace = "default"

    def __init__(self, *names: str) -> None:
        self.client = SimpleNamespace(workflow_service=self)
        self.polled: list[str] = []
        self.status = dict.fromkeys(names, RUNNING)
        self.ended = {name: asyncio.Event() for name in names}

    def end(self, name: str) -> None:
        self.status[name] = TERMINATED
        self.ended[name].set()

    async def until_calm(self) -> None:
        pass

    async def poll_activity_execution(
        self, request: PollActivityExecutionRequest, **_: Any
    ) -> PollActivityExecutionResponse:
        self.polled.append(request.activity_id)
        await self.ended[request.activity_id].wait()
        answer = PollActivityExecutionResponse()
        answer.outcome.failure.message = "enough"
        return answer

    async def describe_activity_execution(
        self, request: DescribeActivityExecutionRequest, **_: Any
    ) -> DescribeActivityExecutionResponse:
        await steps(2)
        answer = DescribeActivityExecutionResponse(
            info=ActivityExecutionInfo(status=self.status[request.activity_id], activity_id=request.activity_id)
        )
        if self.status[request.activity_id] == TERMINATED:
            answer.outcome.failure.message = "enough"
        return answer


async def test_activities_beyond_the_waiting_calls_are_described_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "_DESCRIBE_SECONDS", 0.0)
    temporal = Activities("a", "b", "c")
    parts = SimpleNamespace(limits=Limits(looks=1, activity_polls=1))
    waits = {
        name: asyncio.create_task(
            activity_ended(cast(Any, SimpleNamespace(connection=temporal, parts=parts, run=run(name))))
        )
        for name in temporal.status
    }
    await steps()
    assert temporal.polled == ["a"]
    temporal.status["c"] = PAUSED
    await steps()
    assert not any(task.done() for task in waits.values())
    temporal.end("c")
    async with asyncio.timeout(60):
        assert (await waits["c"]).status == "terminated"
    assert temporal.polled == ["a"]
    temporal.end("a")
    async with asyncio.timeout(60):
        assert (await waits["a"]).reason == "enough"
        while temporal.polled != ["a", "b"]:
            await steps()
    temporal.end("b")
    async with asyncio.timeout(60):
        assert (await waits["b"]).status == "terminated"
