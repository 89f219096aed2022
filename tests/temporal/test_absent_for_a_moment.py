"""A server that says once that there is no such run is not believed at once: nothing is given up for that."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.support import Served
from tests.temporal import run_workflows as workflows
from tests.temporal.fronts import Front, front
from tests.temporal.test_children import has_the_whole_family, register, to_the_end
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_following_faults import are_whole, ended, gateway_at, play
from tests.temporal.test_run_endings import data, has
from tests.temporal.test_run_endings import until as log_until
from tests.temporal.test_runs import QUEUE, reset, start, steps, until
from wakeline.errors import WorkflowNotFoundError
from wakeline.gateway.following.finding.finder import Finder, Found
from wakeline.gateway.following.watching import state
from wakeline.gateway.rules import Follow

ABSENT: Final[list[Any]] = [5, "workflow not found", 1]


@pytest.fixture
def name() -> str:
    return f"absent-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        yield


@pytest.fixture
async def before(client: Client) -> AsyncIterator[Front]:
    async with front(client) as standing:
        yield standing


async def described(served: Served, times: int, outcome: str = "OK") -> None:
    """Return when Temporal has described runs so often."""
    async with asyncio.timeout(60):
        while await calls(served, outcome) < times:
            await asyncio.sleep(0.05)


async def calls(served: Served, outcome: str) -> float:
    call = "DescribeWorkflowExecution"
    return await served.metric("wakeline_temporal_calls_total", call=call, outcome=outcome)


async def test_what_a_run_is_doing_is_looked_at_again(client: Client, before: Front, tmp_path: Path, name: str) -> None:
    async with gateway_at(before.address, tmp_path) as served:
        await start(client, name, workflows.Approval.run, None)
        stream = await served.stream(name)
        await described(served, 3)  # found, followed, and looked at
        await before.fail(DescribeWorkflowExecution=ABSENT)
        await described(served, 1, "NOT_FOUND")
        events = await until(stream, "$run.waiting")
        assert told(events, "$run.waiting")[0]["for"] == "input"


async def test_what_a_rule_is_for_is_looked_for_again(client: Client, before: Front, tmp_path: Path, name: str) -> None:
    how: dict[str, Any] = {"follow": (Follow(workflow_id=f"{name}*"),), "sweep_interval": 0.2}
    async with gateway_at(before.address, tmp_path, **how) as served:
        await before.fail(DescribeWorkflowExecution=ABSENT)
        await play(client, name)
        are_whole(await ended(served, name))
        assert await calls(served, "NOT_FOUND") == 1


async def test_a_child_is_looked_for_again(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, refused = Finder.find, Counter[str]()

    async def absent(
        finder: Finder, connection: Any, workflow_id: str, run_id: str | None = None, *, activity: bool = False
    ) -> Found:
        if "-child-" in workflow_id and not refused[workflow_id]:
            refused[workflow_id] += 1
            raise WorkflowNotFoundError(f"Temporal has no workflow {workflow_id!r}")
        return await find(finder, connection, workflow_id, run_id, activity=activity)

    monkeypatch.setattr(Finder, "find", absent)
    async with running_gateway(temporal, tmp_path) as served:
        parent = await start(client, name, workflows.Leaves.run, 2, 1)
        await register(served, name)
        await parent.signal("go")
        has_the_whole_family(await to_the_end(served, name), 2)
    assert set(refused.values()) == {1}


async def test_a_reset_is_not_taken_for_a_termination(
    client: Client, before: Front, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_SOONEST", 1000.0)  # so that the next who has it described is the one that saw its end
    async with gateway_at(before.address, tmp_path) as served:
        handle = await start(client, name, workflows.Steps.run)
        await register(served, name)
        await steps(handle, "a")
        await log_until(served, name, has("step"))
        await described(served, 3)
        await before.fail(DescribeWorkflowExecution=ABSENT)
        new = await reset(client, handle, handle.first_execution_run_id or "", 4)
        await described(served, 1, "NOT_FOUND")
        await steps(client.get_workflow_handle(name), "b", "end")
        log = await log_until(served, name, has("$run.closed"))
    assert [continued["reason"] for continued in data(log, "$run.continued")] == ["reset"]
    assert [(closed["status"], closed["run_id"]) for closed in data(log, "$run.closed")] == [("completed", new)]
    assert data(log, "step") == ["a", "a", "b"]
