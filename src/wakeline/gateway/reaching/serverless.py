"""The tasks that Temporal starts workers for, such as AWS Lambda functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import WorkflowExecutionVersioningInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeWorkerDeploymentVersionRequest
from temporalio.service import RPCError

from wakeline.gateway.reaching.connection import Connection
from wakeline.temporal.deployments import Queue, Version, Workers, own_version, queue_versions, workers_of
from wakeline.temporal.failures import RPC_TIMEOUT

# Runs that wait for the same workers share an answer for so long; a new deployment is noticed after it.
_KEPT_SECONDS: Final = 60.0
_log = structlog.get_logger(__name__)
S = TypeVar("S", Queue, Version)
T = TypeVar("T")
Ask: TypeAlias = Callable[[Connection, S], Coroutine[Any, Any, T]]


class Serverless:
    """Asks Temporal for which tasks it starts workers, and keeps the answers for a minute.

    Runs that wait for the same workers share them. If Temporal refuses or cannot answer, it counts as no.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._answers: dict[object, tuple[float, asyncio.Task[Any]]] = {}  # the time until which it is kept
        self._failed = False

    async def starts(self, connection: Connection, run: WorkflowExecutionVersioningInfo, queue: Queue) -> bool:
        """Return whether Temporal starts workers for a run's tasks on a task queue.

        Args:
            connection: Temporal, in the run's namespace.
            run: What the run's description says of its version.
            queue: The task queue.
        """
        own = own_version(run)
        if own is not None:
            workers = await self._workers(connection, own)
            if queue in workers.queues:  # tasks on a queue of other workers go to that queue's version
                return queue in workers.started
        for version in await self._kept(connection, queue, _versions_of) or ():
            if queue in (await self._workers(connection, version)).started:
                return True
        return False

    async def _workers(self, connection: Connection, version: Version) -> Workers:
        return await self._kept(connection, version, _workers_of) or Workers()

    async def _kept(self, connection: Connection, subject: S, ask: Ask[S, T]) -> T | None:
        """Return the answer that is kept or under way, else ask; None if Temporal has none."""
        now, key = self._clock(), (connection.namespace, subject)
        if key not in self._answers or self._answers[key][0] <= now:
            self._answers = {key: kept for key, kept in self._answers.items() if now < kept[0]}
            asking = asyncio.create_task(self._answer(connection, ask(connection, subject)))
            self._answers[key] = (now + _KEPT_SECONDS, asking)
        answer: T | None = await asyncio.shield(self._answers[key][1])
        return answer

    async def _answer(self, connection: Connection, call: Coroutine[Any, Any, T]) -> T | None:
        try:
            return await connection.to_its_end(call)
        except RPCError as error:
            if not self._failed:
                self._failed = True
                _log.info(
                    "Temporal does not say for which tasks it starts workers; all count as tasks of other workers",
                    namespace=connection.namespace,
                    error=error.message,
                )
            return None


async def _versions_of(connection: Connection, queue: Queue) -> tuple[Version, ...]:
    request = DescribeTaskQueueRequest(
        namespace=connection.namespace, task_queue=TaskQueue(name=queue.name), task_queue_type=queue.kind
    )
    answer = await connection.client.workflow_service.describe_task_queue(request, timeout=RPC_TIMEOUT)
    return queue_versions(answer.versioning_info)


async def _workers_of(connection: Connection, version: Version) -> Workers:
    request = DescribeWorkerDeploymentVersionRequest(
        namespace=connection.namespace,
        deployment_version=WorkerDeploymentVersion(deployment_name=version.deployment, build_id=version.build),
    )
    answer = await connection.client.workflow_service.describe_worker_deployment_version(request, timeout=RPC_TIMEOUT)
    return workers_of(answer)
