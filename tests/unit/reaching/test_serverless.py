"""Temporal is asked as rarely as possible for which tasks it starts workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from temporalio.api.compute.v1 import ComputeConfigScalingGroup
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType, VersioningBehavior
from temporalio.api.workflow.v1 import WorkflowExecutionVersioningInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    DescribeWorkerDeploymentVersionRequest,
    DescribeWorkerDeploymentVersionResponse,
)
from temporalio.service import RPCError, RPCStatusCode

from tests.clocks import Clock
from wakeline.gateway.reaching import Serverless
from wakeline.temporal.deployments import Queue

TASKS = Queue("q", TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
NEW = WorkflowExecutionVersioningInfo()


def pinned(build: str) -> WorkflowExecutionVersioningInfo:
    version = WorkerDeploymentVersion(deployment_name="chat", build_id=build)
    return WorkflowExecutionVersioningInfo(
        behavior=VersioningBehavior.VERSIONING_BEHAVIOR_PINNED, deployment_version=version
    )


class Temporal:
    """A namespace whose task queue `q` has a current version, and whose version `lambda` has a compute provider."""

    namespace = "default"

    def __init__(self, current: str, fails: RPCStatusCode | None = None) -> None:
        self.current = current
        self.fails = fails
        self.client = self.workflow_service = self
        self.calls = Counter[str]()

    async def to_its_end(self, call: Coroutine[Any, Any, Any]) -> Any:
        return await call

    async def describe_task_queue(self, request: DescribeTaskQueueRequest, **_: Any) -> DescribeTaskQueueResponse:
        await self._answer(f"queue {request.task_queue.name}")
        answer = DescribeTaskQueueResponse()
        if request.task_queue.name == "q":
            version = WorkerDeploymentVersion(deployment_name="chat", build_id=self.current)
            answer.versioning_info.current_deployment_version.CopyFrom(version)
        return answer

    async def describe_worker_deployment_version(
        self, request: DescribeWorkerDeploymentVersionRequest, **_: Any
    ) -> DescribeWorkerDeploymentVersionResponse:
        build = request.deployment_version.build_id
        await self._answer(f"version {build}")
        answer = DescribeWorkerDeploymentVersionResponse()
        answer.version_task_queues.add(name="q", type=TASKS.kind)
        if build == "lambda":
            groups = answer.worker_deployment_version_info.compute_config.scaling_groups
            groups["all"].CopyFrom(ComputeConfigScalingGroup())
        return answer

    async def _answer(self, call: str) -> None:
        self.calls[call] += 1
        await asyncio.sleep(0)
        if self.fails is not None:
            raise RPCError("not for you", self.fails, b"")


@pytest.mark.parametrize(
    ("run", "queue", "current", "starts"),
    [
        pytest.param(NEW, TASKS, "lambda", True, id="a run of which no worker has accepted a task goes by its queue"),
        pytest.param(NEW, TASKS, "ours", False, id="the queue's workers are not started by Temporal"),
        pytest.param(pinned("lambda"), TASKS, "ours", True, id="a pinned run goes by its own version"),
        pytest.param(pinned("ours"), TASKS, "lambda", False, id="its own version is not started by Temporal"),
        pytest.param(
            pinned("lambda"), TASKS._replace(name="other"), "ours", False, id="the queue is one of other workers"
        ),
    ],
)
async def test_temporal_starts_workers_for(
    run: WorkflowExecutionVersioningInfo, queue: Queue, current: str, starts: bool
) -> None:
    assert await Serverless().starts(cast(Any, Temporal(current)), run, queue) is starts


async def test_many_runs_that_wait_share_an_answer_for_a_minute() -> None:
    temporal, clock = Temporal("lambda"), Clock()
    serverless = Serverless(clock)
    for minute in (1, 2):
        waiting = (serverless.starts(cast(Any, temporal), NEW, TASKS) for _ in range(50))
        assert all(await asyncio.gather(*waiting))
        clock.now += 59
        assert await serverless.starts(cast(Any, temporal), NEW, TASKS)
        assert temporal.calls == {"queue q": minute, "version lambda": minute}
        clock.now += 1
    temporal.current = "ours"
    assert not await serverless.starts(cast(Any, temporal), NEW, TASKS)


async def test_a_run_that_is_no_longer_followed_takes_no_answer_from_the_others() -> None:
    temporal, serverless = Temporal("lambda"), Serverless()
    first, second = (
        asyncio.create_task(serverless.starts(cast(Any, temporal), pinned("lambda"), TASKS)) for _ in range(2)
    )
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    assert temporal.calls == {"version lambda": 1}


@pytest.mark.parametrize("status", [RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED])
async def test_a_server_that_does_not_say_starts_no_workers_and_is_logged_once(status: RPCStatusCode) -> None:
    temporal, clock = Temporal("lambda", fails=status), Clock()
    serverless = Serverless(clock)
    with capture_logs() as logs:
        for _ in range(3):
            assert not await serverless.starts(cast(Any, temporal), NEW, TASKS)
            assert not await serverless.starts(cast(Any, temporal), pinned("lambda"), TASKS)
            clock.now += 60
    assert temporal.calls == {"queue q": 3, "version lambda": 3}
    assert [(log["log_level"], log["error"]) for log in logs] == [("info", "not for you")]
