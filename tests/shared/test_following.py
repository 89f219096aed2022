"""Workflows are followed by the gateways that own them, whichever gateway they were registered at."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.shared.conftest import FAULTS, Gateway, Start
from tests.sharing import Faults
from tests.support import Served, data_of, everything
from tests.temporal import run_workflows as workflows

QUEUE = "shared"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=[workflows.Steps], activities=workflows.ACTIVITIES):
        yield


async def pair(start: Start, temporal: WorkflowEnvironment, faults: Faults = FAULTS, **changed: Any) -> list[Gateway]:
    address = temporal.client.service_client.config.target_host
    gateways = [await start(faults, temporal=address, drain_grace=40.0, **changed) for _ in range(2)]
    await asyncio.sleep(2)  # until both have their share of the shards
    return gateways


async def begin(client: Client, at: Served, session: str, count: int) -> list[Any]:
    """Start workflows, and have them followed into one session."""
    handles = []
    for number in range(count):
        name = f"{session}-{number}"
        handles.append(await client.start_workflow(workflows.Steps.run, id=name, task_queue=QUEUE))
        status, answer = await at.call("POST", "/v1/runs", json={"workflow_id": name, "session": session})
        assert status in (200, 201), answer
    return handles


async def test_runs_are_followed_by_their_owners_and_each_end_is_reported_once(
    start: Start, client: Client, temporal: WorkflowEnvironment
) -> None:
    first, second = await pair(start, temporal)
    session = f"shared-{uuid.uuid4().hex[:8]}"
    handles = await begin(client, first, session, 12)
    stream = await second.stream(session, "until=settled")
    for handle in handles:
        await handle.signal("step", "a")
    await asyncio.gather(*(handle.signal("step", "end") for handle in handles))
    async with asyncio.timeout(100):
        events = await stream.rest()
    topics = [event["topic"] for event in events]
    assert topics.count("$run.started") == topics.count("$run.closed") == topics.count("step") == 12
    assert topics.count("$session.settled") == 1
    assert topics[-1] == "$session.settled"


@pytest.mark.parametrize("attempt", range(3))
async def test_the_session_is_settled_once_although_its_runs_end_at_once_at_two_gateways(
    start: Start, client: Client, temporal: WorkflowEnvironment, attempt: int
) -> None:
    gateways = await pair(start, temporal, Faults(latency=0.1), lease=4.0)
    session = f"settled-{uuid.uuid4().hex[:8]}"
    handles = await begin(client, gateways[0], session, 6)
    await asyncio.gather(*(handle.terminate() for handle in handles))
    store = gateways[0].engine

    async def topics() -> list[str]:
        return [event.topic for event in await everything(store, session)]

    async with asyncio.timeout(60):
        while (seen := await topics()).count("$run.closed") < 6 or "$session.settled" not in seen:
            await asyncio.sleep(0.1)
    assert seen.count("$session.settled") == 1
    assert {data_of(event)["status"] for event in await everything(store, session) if event.topic == "$run.closed"} == {
        "terminated"
    }
