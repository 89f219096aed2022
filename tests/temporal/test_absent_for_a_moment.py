"""A server that says once that there is no such run is not believed at once: nothing is given up for that."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from tests.support import Served
from tests.temporal import run_workflows as workflows
from tests.temporal.fronts import Front, front
from tests.temporal.test_follower import told
from tests.temporal.test_following_faults import gateway_at
from tests.temporal.test_runs import QUEUE, start, until

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
    async with asyncio.timeout(30):
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
        events = await until(stream, "$run.waiting")
        assert told(events, "$run.waiting")[0]["for"] == "input"
        assert await calls(served, "NOT_FOUND") == 1
