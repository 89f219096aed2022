"""A run does not wait for a worker while Temporal is starting one for it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from tests.support import Served
from tests.temporal.fronts import front
from tests.temporal.lambdas import Lambda, create_serverless_version, serverless_server
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import until
from tests.temporal.test_worker_versions import make_current, worker
from tests.temporal.versioned_workflows import Delegating, Pinned, greet
from wakeline.gateway.following.watching import state, waiting

TASKS, ACTIVITIES = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
Server = tuple[WorkflowEnvironment, Lambda]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Server]:
    async with serverless_server() as running:
        yield running


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a worker waited for soon, if Temporal starts none, and have each answer of Temporal kept to the end of a test."""
    monkeypatch.setattr(waiting, "_UNTAKEN", 1.0)
    monkeypatch.setattr(state, "_SOONEST", 0.3)
    monkeypatch.setattr("wakeline.gateway.reaching.serverless._KEPT_SECONDS", 600.0)


def unique(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


async def start(client: Client, name: str, queue: str) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(Pinned.run, id=name, task_queue=queue)


async def route(client: Client, name: str, *kinds: TaskQueueType.ValueType) -> None:
    """Have tasks of these kinds sent to the version of this name, and return when its task queue does so."""
    await make_current(client, name, "1.0")
    for kind in kinds:
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind
        )
        async with asyncio.timeout(60):
            while not (await client.workflow_service.describe_task_queue(request)).versioning_info.current_version:
                await asyncio.sleep(0.05)


async def deployed(client: Client, kind: str) -> tuple[str, WorkflowHandle[Any, Any]]:
    """A task queue whose worker has gone, and a run of which that worker has accepted a task.

    Args:
        client: Temporal.
        kind: `serverless`: Temporal starts a worker for the next task. `ordinary`: nobody does.
    """
    name = unique(kind)
    if kind == "serverless":
        await create_serverless_version(client, name, "1.0")
    async with worker(client, name, "1.0", Pinned, greet), asyncio.timeout(60):
        await route(client, name, TASKS, ACTIVITIES)
        handle = await start(client, f"{name}-pinned", name)
        while not (await handle.describe()).raw_description.workflow_execution_info.HasField("versioning_info"):
            await asyncio.sleep(0.05)
    return name, handle


async def looked_at(served: Served, name: str, times: int) -> None:
    """Return when the gateway has described its runs so many times more."""
    call = partial(served.metric, "wakeline_temporal_calls_total", call="DescribeWorkflowExecution")
    begun = await call()
    async with asyncio.timeout(60):
        while await call() < begun + times:
            await served.call("POST", "/v1/nudge", json={"workflow_id": name})
            await asyncio.sleep(0.1)


async def waits(served: Served, name: str, queue: str) -> list[Any]:
    log = (await served.call("GET", f"/v1/sessions/{name}/events"))[1]["events"]
    return [data for data in told(log, "$run.waiting") if data.get("task_queue") == queue]


@pytest.mark.parametrize("task", ["the first of a run", "a later one of a pinned run"])
async def test_a_run_waits_for_an_ordinary_worker_and_not_for_one_that_temporal_starts(
    server: Server, tmp_path: Path, task: str
) -> None:
    (temporal, functions), client = server, server[0].client
    serverless, ordinary = await deployed(client, "serverless"), await deployed(client, "ordinary")
    functions.invoked.clear()
    async with running_gateway(temporal, tmp_path) as served:
        runs = []
        for queue, pinned in (serverless, ordinary):
            if task == "the first of a run":
                await pinned.terminate()
                runs.append(await start(client, f"{queue}-new", queue))
            else:
                await pinned.signal(Pinned.go)
                runs.append(pinned)
        streams = [await served.stream(handle.id) for handle in runs]
        waiting_for = told(await until(streams[1], "$run.waiting"), "$run.waiting")
        assert waiting_for == [{"for": "worker", "task_queue": ordinary[0]}]
        async with asyncio.timeout(90):
            await functions.invoked.wait()
            # Temporal has been asked for both, and they are looked at again.
            while await served.metric("wakeline_temporal_calls_total", call="DescribeWorkerDeploymentVersion") < 2:
                await asyncio.sleep(0.1)
        await looked_at(served, runs[0].id, 8)
        assert await waits(served, runs[0].id, serverless[0]) == []
        async with worker(client, serverless[0], "1.0", Pinned):
            await runs[0].signal(Pinned.go)
            await until(streams[0], "$run.closed")
        assert await waits(served, runs[0].id, serverless[0]) == []
        # One answer for each version, and for each task queue, also of a pinned run whose version does not have it yet.
        versions = await served.metric("wakeline_temporal_calls_total", call="DescribeWorkerDeploymentVersion")
        queues = await served.metric("wakeline_temporal_calls_total", call="DescribeTaskQueue")
        assert versions == 2
        assert queues == 2 if task == "the first of a run" else queues <= 2
    await runs[1].terminate()


async def test_an_activity_on_a_queue_of_other_workers_goes_by_their_version(server: Server, tmp_path: Path) -> None:
    (temporal, functions), client = server, server[0].client
    serverless, _ = await deployed(client, "serverless")
    name = unique("delegating")
    functions.invoked.clear()
    async with worker(client, name, "1.0", Delegating), running_gateway(temporal, tmp_path) as served:
        await route(client, name, TASKS)
        handle = await client.start_workflow(Delegating.run, serverless, id=name, task_queue=name)
        stream = await served.stream(name)
        async with asyncio.timeout(90):
            await functions.invoked.wait()
            # That of the run's own workers, which do not poll the activity's queue, and that of the queue.
            while await served.metric("wakeline_temporal_calls_total", call="DescribeWorkerDeploymentVersion") < 2:
                await asyncio.sleep(0.1)
        await looked_at(served, name, 8)
        async with worker(client, serverless, "1.0", Pinned, greet):
            await until(stream, "$run.closed")
        assert await waits(served, name, serverless) == []
        await handle.result()


async def test_a_worker_that_temporal_does_not_get_started_is_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_STARTING", 4.0)
    client = server[0].client
    queue, handle = await deployed(client, "serverless")
    async with running_gateway(server[0], tmp_path) as served:
        await handle.signal(Pinned.go)
        stream = await served.stream(handle.id)
        events = await until(stream, "$run.waiting")
        assert told(events, "$run.waiting") == [{"for": "worker", "task_queue": queue}]
        async with worker(client, queue, "1.0", Pinned):
            await until(stream, "$run.closed")


@pytest.mark.parametrize("status", [7, 12], ids=["permission denied", "unimplemented"])
async def test_a_gateway_that_may_not_ask_waits_for_every_worker(server: Server, tmp_path: Path, status: int) -> None:
    client = server[0].client
    queue, handle = await deployed(client, "serverless")
    async with front(client) as between:
        await between.fail(
            DescribeWorkerDeploymentVersion=[status, "Not for you."], DescribeTaskQueue=[status, "Not for you."]
        )
        async with running_gateway(server[0], tmp_path, temporal=between.address) as served:
            await handle.signal(Pinned.go)
            events = await until(await served.stream(handle.id), "$run.waiting")
            assert told(events, "$run.waiting") == [{"for": "worker", "task_queue": queue}]
            assert (await served.call("GET", "/readyz"))[1]["temporal"] == "ok"
    await handle.terminate()
