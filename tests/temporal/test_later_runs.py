"""The same Workflow Id started anew: what the earlier run had to say, and its end, come before the later one."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.support import Served
from tests.temporal.ending_workflows import FIRST, LAST, WORKFLOWS, Ends
from tests.temporal.test_follower import running_gateway
from tests.temporal.test_run_endings import Log, data, has, has_ended, has_said, read, topics, until
from wakeline.gateway.rules import Follow

SAID_FIRST = ["said"] * len(FIRST)
SAID_LAST = ["said"] * len(LAST)
RUN = ["$run.started", *SAID_FIRST, *SAID_LAST, "$run.closed"]


@pytest.fixture
def name() -> str:
    return f"again/{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def worker(client: Client, name: str) -> AsyncIterator[None]:
    async with Worker(client, task_queue=name, workflows=WORKFLOWS):
        yield


async def start(client: Client, name: str, status: str = "completed", **options: Any) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(Ends.run, args=[status, True], id=name, task_queue=name, **options)


async def register(served: Served, name: str) -> None:
    status, answer = await served.call("POST", "/v1/runs", json={"workflow_id": name})
    assert status == 200, answer


def own(log: Log) -> list[str]:
    """What is told of runs; sessions settle in between or not, as it happens."""
    return [topic for topic in topics(log) if topic != "$session.settled"]


def runs(log: Log) -> list[str]:
    """Whose events they are, in order."""
    return list(dict.fromkeys(event["run"] for event in log if "run" in event))


async def test_what_an_ended_run_owes_comes_before_a_later_one_or_is_given_up(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    given_up, waited_for = f"{name}-1", f"{name}-2"
    async with worker(client, given_up), worker(client, waited_for):
        handles = [await start(client, each, "terminated") for each in (given_up, waited_for)]
        async with running_gateway(temporal, tmp_path) as served:
            for handle in handles:
                await register(served, handle.id)
                await until(served, handle.id, has("said", len(FIRST)))
        for handle in handles:
            await handle.signal(Ends.end)
            await has_said(handle)
    for handle in handles:
        await handle.terminate(reason="enough")
    async with running_gateway(temporal, tmp_path, drain_grace=0.5) as served:
        for handle in handles:
            log = await until(served, handle.id, has("$run.closed"))
            assert own(log) == ["$run.started", *SAID_FIRST, "$run.closed"]
        # No worker comes for as long as is waited at an end.
        await start(client, given_up)
        await register(served, given_up)
        await until(served, given_up, has("$run.started", 2))
    async with running_gateway(temporal, tmp_path, drain_grace=60) as served:
        await start(client, waited_for)
        await register(served, waited_for)
        assert own(await read(served, waited_for)) == ["$run.started", *SAID_FIRST, "$run.closed"]
        async with worker(client, given_up), worker(client, waited_for):
            for each in (given_up, waited_for):
                await client.get_workflow_handle(each).signal(Ends.end)
            log = await until(served, waited_for, has("$run.closed", 2))
            assert own(log) == ["$run.started", *SAID_FIRST, "$run.closed", *SAID_LAST, "$run.drained", *RUN]
            assert data(log, "said") == [*FIRST, *LAST, *FIRST, *LAST]
            log = await until(served, given_up, has("$run.closed", 2))
            assert own(log) == ["$run.started", *SAID_FIRST, "$run.closed", *RUN]


async def test_runs_that_a_gateway_finds_together_come_one_after_the_other(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    rule = Follow(workflow_id=f"{name}*")
    async with worker(client, name):
        first = await start(client, name)
        async with running_gateway(temporal, tmp_path, follow=(rule,), sweep_interval=0.2) as served:
            await until(served, name, has("said", len(FIRST)))
        started = [first.first_execution_run_id]
        for status in ("completed", "failed"):
            await client.get_workflow_handle(name).signal(Ends.end)
            await has_ended(client.get_workflow_handle(name))
            started.append((await start(client, name, status)).first_execution_run_id)
        async with running_gateway(temporal, tmp_path, follow=(rule,), sweep_interval=0.2, drain_grace=60) as served:
            await client.get_workflow_handle(name).signal(Ends.end)
            log = await until(served, name, has("$run.closed", 3))
    assert own(log) == RUN * 3
    assert runs(log) == started
    assert data(log, "said") == [*FIRST, *LAST] * 3


async def test_a_device_that_is_there_at_once_does_not_change_what_a_rule_finds(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    settings = {"follow": (Follow(workflow_id=f"{name}*"),), "sweep_interval": 0.2, "drain_grace": 60}
    names = [f"{name}-{number}" for number in range(5)]
    async with worker(client, name):
        async with running_gateway(temporal, tmp_path, **settings) as served:
            await swept(served)
        for each in names:
            for _ in range(2):
                await client.start_workflow(Ends.run, args=["completed", True], id=each, task_queue=name)
                await client.get_workflow_handle(each).signal(Ends.end)
                await client.get_workflow_handle(each).result()
            await listed(client, each, 2)
        async with running_gateway(temporal, tmp_path, **settings) as served:
            await asyncio.gather(*(read(served, each) for each in names))
            logs = [await until(served, each, has("$run.closed", 2)) for each in names]
    assert [own(log) for log in logs] == [RUN * 2] * 5


async def test_a_device_that_comes_between_two_sweeps_does_not_change_what_a_rule_finds(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    settings = {"follow": (Follow(workflow_id=f"{name}*"),), "sweep_interval": 1000, "drain_grace": 60}
    async with worker(client, name), running_gateway(temporal, tmp_path, **settings) as served:
        await swept(served)
        for _ in range(2):
            handle = await start(client, name)
            await handle.signal(Ends.end)
            await handle.result()
        await listed(client, name, 2)
        log = await until(served, name, has("$run.closed", 2))
    assert own(log) == RUN * 2


async def test_what_a_rule_has_found_is_not_looked_up_again_after_a_restart(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    rule = Follow(workflow_id=f"{name}*")
    async with worker(client, name):
        for number in range(5):
            await client.start_workflow(Ends.run, args=["completed", False], id=f"{name}-{number}", task_queue=name)
            await client.get_workflow_handle(f"{name}-{number}").signal(Ends.end)
        async with running_gateway(temporal, tmp_path, follow=(rule,), sweep_interval=0.2) as served:
            for number in range(5):
                await until(served, f"{name}-{number}", has("$session.settled"))
        async with running_gateway(temporal, tmp_path, follow=(rule,), sweep_interval=0.2) as served:
            await swept(served)
            assert "DescribeWorkflowExecution" not in await calls(served)


async def test_reads_of_a_session_without_an_open_run_cost_no_call_of_temporal(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    ended, published, closed = f"{name}-1", f"{name}-2", f"{name}-3"
    event = {"events": [{"topic": "said", "data": "hello"}]}
    async with worker(client, ended), running_gateway(temporal, tmp_path, drain_grace=60) as served:
        handle = await start(client, ended)
        await handle.signal(Ends.end)
        await until(served, ended, has("$session.settled"))
        for session in (published, closed):
            assert (await served.call("POST", f"/v1/sessions/{quote(session, safe='')}/events", json=event))[0] == 200
        assert (await served.call("POST", f"/v1/sessions/{quote(closed, safe='')}/close"))[0] == 200
        await read(served, published)
        before = await calls(served)
        for session in (ended, published, closed):
            for _ in range(100):
                await read(served, session)
                await state(served, session)
        of_reads = {call: count - before.get(call, 0) for call, count in (await calls(served)).items()}
        # What is asked in the background goes on: whether Temporal is there, and what is new in the namespace.
        assert {call for call, count in of_reads.items() if count} <= {
            "GetSystemInfo",
            "DescribeNamespace",
            "ListWorkflowExecutions",
            "DescribeWorkflowExecution",
        }
        # A session without an open run is looked up once in some minutes, however often it is read.
        assert of_reads.get("DescribeWorkflowExecution", 0) <= 3
        assert of_reads.get("ListWorkflowExecutions", 0) < 100  # sweeps, of which 600 slow reads see some
        # A run that begins now is found all the same, by the next sweep after a read.
        later = await start(client, ended)
        await later.signal(Ends.end)
        log = await until(served, ended, has("$run.closed", 2))
    assert own(log) == RUN * 2


async def test_runs_that_begin_close_to_each_other_are_reported_in_their_order(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name), running_gateway(temporal, tmp_path, sweep_interval=1000, drain_grace=60) as served:
        ran: list[str | None] = []
        for number in range(3):
            await listed(client, name, number)
            handle = await start(client, name)
            ran.append(handle.first_execution_run_id)
            if number == 0:
                await register(served, name)
            await handle.signal(Ends.end)
            await handle.result()
            if number == 0:
                await until(served, name, has("$run.closed"))
        # Of the second one nobody has said anything when the third is asked for.
        await register(served, name)
        log = await until(served, name, has("$run.closed", 3))
    assert own(log) == RUN * 3
    assert runs(log) == ran


@pytest.mark.parametrize("nudged", [(0, 2), (0, 1, 2)], ids=["the first and the last", "all"])
async def test_runs_that_begin_close_to_each_other_and_are_nudged_are_reported_in_their_order(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, nudged: tuple[int, ...]
) -> None:
    async with worker(client, name), running_gateway(temporal, tmp_path, sweep_interval=1000, drain_grace=60) as served:
        first = await start(client, name)
        device = await served.stream(name)  # a gateway follows a nudged workflow if its session has a device
        ran, log = [first.first_execution_run_id], list[Any]()
        await first.signal(Ends.end)
        await first.result()
        await nudge(served, name, 0 in nudged)
        for number in (1, 2):
            await listed(client, name, number)
            handle = await start(client, name)
            ran.append(handle.first_execution_run_id)
            await nudge(served, name, number in nudged)
            await handle.signal(Ends.end)
            await handle.result()
        await nudge(served, name, True)
        async with asyncio.timeout(60):
            while topics(log).count("$run.closed") < 3:
                log.append(await device.next())
    assert own(log) == RUN * 3
    assert runs(log) == ran


async def test_a_nudge_of_a_later_run_counts_while_the_end_of_the_earlier_one_is_awaited(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name):
        handle = await start(client, name, "terminated")
        async with running_gateway(temporal, tmp_path) as served:
            await register(served, name)
            await until(served, name, has("said", len(FIRST)))
        await handle.signal(Ends.end)
        await has_said(handle)
    await handle.terminate(reason="enough")
    async with running_gateway(temporal, tmp_path, sweep_interval=1000, drain_grace=60) as served:
        async with asyncio.timeout(60):
            while await served.metric("wakeline_runs_followed") < 1:
                await asyncio.sleep(0.02)
        device, log = await served.stream(name), list[Any]()
        later = await start(client, name)
        await nudge(served, name, True)
        async with worker(client, name):
            await later.signal(Ends.end)
            async with asyncio.timeout(60):
                while topics(log).count("$run.closed") < 2:
                    log.append(await device.next())
    assert own(log) == RUN * 2
    assert runs(log) == [handle.first_execution_run_id, later.first_execution_run_id]


async def nudge(served: Served, name: str, wanted: bool) -> None:
    if wanted:
        async with served.http.post("/v1/nudge", json={"workflow_id": name}) as answer:
            assert answer.status == 202


async def listed(client: Client, workflow_id: str, count: int) -> None:
    """Return when Temporal lists so many runs of a workflow, as ended.

    It lists a run a moment after its start: runs that begin within that moment may be found in another order.
    """
    query = f"WorkflowId = '{workflow_id}' AND ExecutionStatus != 'Running'"
    async with asyncio.timeout(60):
        while (await client.count_workflows(query)).count < count:
            await asyncio.sleep(0.01)


async def swept(served: Served) -> None:
    """Return when a sweep is over: when the second has begun."""
    async with asyncio.timeout(60):
        while (await calls(served)).get("ListWorkflowExecutions", 0) < 2:
            await asyncio.sleep(0.05)


async def calls(served: Served) -> dict[str, int]:
    """How often Temporal was called, by the call."""
    async with served.http.get("/metrics") as answer:
        found = re.findall(r'wakeline_temporal_calls_total{call="(\w+)",outcome="OK"} (\d+)', await answer.text())
    return {call: int(times) for call, times in found}


async def test_a_run_that_takes_the_place_of_another_begins_after_its_end(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name), running_gateway(temporal, tmp_path, drain_grace=60) as served:
        handle = await start(client, name, "terminated")
        await register(served, name)
        await until(served, name, has("said", len(FIRST)))
        for number in range(2, 7):
            await handle.signal(Ends.end)
            await has_said(handle)
            await start(client, name, "terminated", id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING)
            await register(served, name)
            handle = client.get_workflow_handle(name)
            await until(served, name, has("$run.started", number))
        await handle.signal(Ends.end)
        await has_said(handle)
        await handle.terminate()
        log = await until(served, name, has("$run.closed", 6))
    assert own(log) == RUN * 6
    assert data(log, "said") == [*FIRST, *LAST] * 6


async def test_what_another_run_comes_to_owe_while_a_later_one_waits_for_the_first_is_not_told_after_it(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    own_queue, others = f"{name}-1", f"{name}-2"
    async with running_gateway(temporal, tmp_path, drain_grace=4) as served:
        async with worker(client, own_queue), worker(client, others):
            handles = [await start(client, each, "terminated") for each in (own_queue, others)]
            for handle in handles:
                registration = {"workflow_id": handle.id, "session": name}
                assert (await served.call("POST", "/v1/runs", json=registration))[0] == 200
            await until(served, name, has("said", 2 * len(FIRST)))
        for handle in handles:
            await handle.terminate()
        later = await start(client, own_queue)
        assert (await served.call("POST", "/v1/runs", json={"workflow_id": own_queue, "session": name}))[0] == 200
        await until(served, name, has("$run.started", 3))
        async with worker(client, others):
            async with asyncio.timeout(60):
                while not all([run["drained"] for run in (await state(served, name))["runs"]][:2]):
                    await asyncio.sleep(0.1)
            log = await read(served, name)
        await later.terminate()
    begun = [event.get("run") for event in log].index(later.first_execution_run_id)
    assert {event["run"] for event in log[begun:] if "run" in event} == {later.first_execution_run_id}


async def state(served: Served, session: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await served.call("GET", f"/v1/sessions/{quote(session, safe='')}"))[1]
    return answer
