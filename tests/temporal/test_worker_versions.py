"""Worker Versioning: a pinned workflow upgrades when it continues as new, and stays one run with one stream."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker, WorkerDeploymentConfig

from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import until
from tests.temporal.versioned_workflows import First, Second


def worker(client: Client, name: str, build: str, kind: type, *activities: Callable[..., Any]) -> Worker:
    version = WorkerDeploymentVersion(deployment_name=name, build_id=build)
    config = WorkerDeploymentConfig(version=version, use_worker_versioning=True)
    return Worker(client, task_queue=name, workflows=[kind], activities=activities, deployment_config=config)


async def make_current(client: Client, name: str, build: str) -> None:
    """Make a version the current one, once its worker has polled."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=name, build_id=build, ignore_missing_task_queues=True
    )
    async with asyncio.timeout(60):
        while True:
            try:
                await client.workflow_service.set_worker_deployment_current_version(request)
            except RPCError as error:
                if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
                    raise
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_workflow_that_upgrades_when_it_continues_as_new_stays_one_run(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    name = f"versioned-{uuid.uuid4().hex[:8]}"
    async with (
        worker(client, name, "1.0", First),
        worker(client, name, "2.0", Second),
        running_gateway(temporal, tmp_path) as served,
    ):
        await make_current(client, name, "1.0")
        handle = await client.start_workflow(First.run, None, id=name, task_queue=name)
        stream = await served.stream(name)
        events = await until(stream, "version")
        await make_current(client, name, "2.0")
        await handle.signal(First.go)
        events += await until(stream, "$session.settled")
    assert told(events, "version") == ["1.0", "2.0"]
    (continued,), (closed,) = told(events, "$run.continued"), told(events, "$run.closed")
    assert (continued["reason"], continued["drained"]) == ("continue_as_new", True)
    assert (closed["status"], closed["drained"]) == ("completed", True)
    assert {event["run"] for event in events if "run" in event} == {handle.first_execution_run_id}
