"""Workflows are followed by the gateways that own them, whichever gateway they were registered at."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.shared.conftest import FAULTS, Gateway, Start, shared_out, simulated
from tests.sharing import Faults, SharedEngine
from tests.soak import times
from tests.support import Served, data_of, everything
from tests.temporal import run_workflows as workflows
from wakeline.gateway.ownership import wakeups

QUEUE = "shared"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    defined = [workflows.Steps, workflows.Chapters]
    async with Worker(client, task_queue=QUEUE, workflows=defined, activities=workflows.ACTIVITIES):
        yield


async def pair(start: Start, temporal: WorkflowEnvironment, faults: Faults = FAULTS, **changed: Any) -> list[Gateway]:
    address = temporal.client.service_client.config.target_host
    gateways = [await start(faults, temporal=address, drain_grace=40.0, **changed) for _ in range(2)]
    await shared_out(gateways)
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
    async with asyncio.timeout(200):
        events = await stream.rest()
    topics = [event["topic"] for event in events]
    assert topics.count("$run.started") == topics.count("$run.closed") == topics.count("step") == 12
    assert topics.count("$session.settled") == 1
    assert topics[-1] == "$session.settled"


@pytest.mark.parametrize("attempt", range(times(1, 1)))
async def test_the_session_is_settled_once_although_its_runs_end_at_once_at_two_gateways(
    start: Start, client: Client, temporal: WorkflowEnvironment, attempt: int
) -> None:
    gateways = await pair(start, temporal, Faults(latency=0.03), lease=4.0)
    session = f"settled-{uuid.uuid4().hex[:8]}"
    handles = await begin(client, gateways[0], session, 6)
    await asyncio.gather(*(handle.terminate() for handle in handles))
    store = gateways[0].engine

    async def topics() -> list[str]:
        return [event.topic for event in await everything(store, session)]

    async with asyncio.timeout(200):
        while (seen := await topics()).count("$run.closed") < 6 or "$session.settled" not in seen:
            await asyncio.sleep(0.1)
    assert seen.count("$session.settled") == 1
    assert {data_of(event)["status"] for event in await everything(store, session) if event.topic == "$run.closed"} == {
        "terminated"
    }


async def test_an_activitys_event_has_the_same_run_at_every_gateway(
    start: Start, client: Client, temporal: WorkflowEnvironment
) -> None:
    gateways = await pair(start, temporal)
    session = f"named-{uuid.uuid4().hex[:8]}"
    handle = await client.start_workflow(workflows.Chapters.run, 0, id=session, task_queue=QUEUE)
    status, answer = await gateways[0].call("POST", "/v1/runs", json={"workflow_id": session, "session": session})
    assert status in (200, 201), answer
    chain = [str(handle.first_execution_run_id)]
    stream = await gateways[1].stream(session, "from=beginning&topics=$run.continued")
    for _ in range(2):
        await client.get_workflow_handle(session).signal(workflows.Chapters.go)
        async with asyncio.timeout(200):
            chain.append((await stream.next())["data"]["run_id"])
        for served in gateways:  # the owner writes it down after the event
            async with asyncio.timeout(60):
                while (await served.call("GET", f"/v1/sessions/{session}"))[1]["runs"][0]["run_id"] != chain[-1]:
                    await asyncio.sleep(0.05)
        for number, run_id in enumerate(chain):  # an activity knows the id of its own Temporal run only
            for at, served in enumerate(gateways):
                headers = {"run": run_id, "publisher": f"{len(chain)}-{number}-{at}", "sequence": "0"}
                await served.publish(session, {"topic": "said by activity"}, **headers)
    events = [event async for event in said(gateways[0], session)]
    assert {event["run"] for event in events} == {chain[0]}
    assert len(events) == 2 * (2 + 3)
    await client.get_workflow_handle(session).terminate()


async def said(served: Served, session: str) -> AsyncIterator[dict[str, Any]]:
    _, page = await served.call("GET", f"/v1/sessions/{session}/events?from=beginning&topics=said%20by%20activity")
    for event in page["events"]:
        yield event


# A gateway that renews a lease late would lose its runs for a moment, and read them when it has them again.
SWEPT: dict[str, Any] = {
    "close_watches": 0,
    "sweep_interval": 600.0,
    "poll_fastest": 600.0,
    "poll_slowest": 600.0,
    "lease": 8.0,
}


async def test_a_nudge_at_any_gateway_wakes_the_owner(
    start: Start, client: Client, temporal: WorkflowEnvironment
) -> None:
    gateways = await pair(start, temporal, **SWEPT)
    session = f"nudged-{uuid.uuid4().hex[:8]}"
    handles = await begin(client, gateways[0], session, 6)  # both gateways own some of them
    stream = await gateways[1].stream(session, "topics=step")
    for number in range(4):
        for handle in handles:
            await handle.signal("step", f"{handle.id} {number}")
            served = gateways[number % 2]
            assert (await served.call("POST", "/v1/nudge", json={"workflow_id": handle.id}))[0] == 202
            async with asyncio.timeout(100):  # nothing else would read it within 600 s
                assert (await stream.next())["data"] == f"{handle.id} {number}"
    for handle in handles:
        await handle.terminate()


@simulated
async def test_nudges_cost_the_owner_no_write_and_are_written_together_elsewhere(
    start: Start, client: Client, temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    change = SharedEngine.change_record

    async def noted(engine: SharedEngine, key: str, value: bytes | None, **how: Any) -> int:
        written.extend([] if key.startswith("leases/") else [key])
        return await change(engine, key, value, **how)

    monkeypatch.setattr(SharedEngine, "change_record", noted)
    named = {"workflows": [{"workflow_id": f"nobody-{number}"} for number in range(200)]}
    how = SWEPT | {"temporal": temporal.client.service_client.config.target_host}
    gateways = [await start(**how)]
    await shared_out(gateways)
    assert (await gateways[0].call("POST", "/v1/nudge", json=named))[0] == 202
    await asyncio.sleep(0.5)
    assert not written
    gateways.append(await start(**how))
    await shared_out(gateways)
    began = time.monotonic()
    for served in gateways * 20:
        assert (await served.call("POST", "/v1/nudge", json=named))[0] == 202
    async with asyncio.timeout(60):
        while len(set(written)) < 2:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert len(set(written)) == 2
    assert {key.split("/")[0] for key in written} == {"wakeups"}
    # Each gateway writes once in this time at most.
    assert len(written) <= 2 * (1 + (time.monotonic() - began) / wakeups._WRITE_SECONDS)


async def test_a_run_is_followed_by_its_owner_although_every_wake_up_is_lost(
    start: Start, client: Client, temporal: WorkflowEnvironment
) -> None:
    gateways = await pair(start, temporal, Faults(lost_wakeups=1.0))
    session = f"unheard-{uuid.uuid4().hex[:8]}"
    handles = await begin(client, gateways[0], session, 6)  # both gateways own some of them
    for handle in handles:
        await handle.signal("step", "end")
    async with asyncio.timeout(100):
        stream = await gateways[0].stream(session, "topics=$run.closed")
        for _ in handles:
            await stream.next()


async def test_a_result_that_is_wanted_at_one_gateway_is_reported_by_the_owner(
    start: Start, client: Client, temporal: WorkflowEnvironment
) -> None:
    gateways = await pair(start, temporal)
    session = f"wanted-{uuid.uuid4().hex[:8]}"
    handles = await begin(client, gateways[0], session, 6)  # both gateways own some of them
    stream = await gateways[1].stream(session, "topics=step,$run.closed")
    for handle in handles:
        await handle.signal("step", "a")
    await stream.take(len(handles))  # now they are followed
    for handle in handles:
        wanted = {"workflow_id": handle.id, "session": session, "result": True}
        assert (await gateways[1].call("POST", "/v1/runs", json=wanted))[0] == 200
    for handle in handles:
        await handle.signal("step", "end")
    async with asyncio.timeout(200):
        closed = [(await stream.next())["data"] for _ in handles]
    assert [data["result"] for data in closed] == [{"steps": 1}] * len(handles)
