"""Follows a standalone activity: it has no stream, and its end is reported without a worker."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, timedelta
from typing import Final

from temporalio.api.activity.v1 import ActivityExecutionInfo
from temporalio.api.common.v1 import WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import ActivityExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    DescribeActivityExecutionRequest,
    DescribeActivityExecutionResponse,
    PollActivityExecutionRequest,
)

from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.watching.asking import until_known
from wakeline.gateway.reaching import Connection
from wakeline.temporal.endings import ChainStatus, Ending, forgotten
from wakeline.temporal.failures import RPC_TIMEOUT

# The server answers a waiting call after about 20 s without an end.
_LONG_POLL: Final = timedelta(seconds=40)
_PAUSE: Final = 0.1
# An activity without a waiting call is described at the latest after this time.
_DESCRIBE_SECONDS: Final = 60.0
_STATUSES: Final[dict[int, ChainStatus]] = {
    ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_COMPLETED: "completed",
    ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_FAILED: "failed",
    ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_CANCELED: "canceled",
    ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_TERMINATED: "terminated",
    ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_TIMED_OUT: "timed_out",
}


async def described_activity(
    connection: Connection, activity_id: str, run_id: str | None, timeout: timedelta
) -> WorkflowExecutionInfo:
    """Describe an activity's latest run, or one of its runs, in the form of a workflow's.

    Raises:
        RPCError: Temporal cannot be asked now, or has no such activity.
    """
    info: ActivityExecutionInfo = (await _describe(connection, activity_id, run_id or "", timeout)).info
    return WorkflowExecutionInfo(
        execution=WorkflowExecution(workflow_id=info.activity_id, run_id=info.run_id),
        type=WorkflowType(name=info.activity_type.name),
        start_time=info.schedule_time,
        search_attributes=info.search_attributes,
        task_queue=info.task_queue,
    )


async def activity_ended(subject: Subject) -> Ending:
    """Return when an activity has ended; an outage is waited out.

    Only so many have a waiting call at once; the others are described at intervals.
    """
    connection, limits = subject.connection, subject.parts.limits
    activity_id, run_id = subject.run.workflow_id, subject.run.run_id
    request = PollActivityExecutionRequest(namespace=connection.namespace, activity_id=activity_id, run_id=run_id)

    async def ask() -> Ending | None:
        known = False
        # Nobody queues for a place: one that waited in turn would not be described meanwhile.
        if waits := not limits.activity_polls.locked():
            async with limits.activity_polls:
                service = connection.client.workflow_service
                known = (await service.poll_activity_execution(request, timeout=_LONG_POLL)).HasField("outcome")
        if known or not waits:
            async with limits.looks:
                described = await _describe(connection, activity_id, run_id, RPC_TIMEOUT)
            if known or described.info.status in _STATUSES:
                return _ending(described)
        await asyncio.sleep(_PAUSE if waits else _DESCRIBE_SECONDS * random.uniform(0.5, 1))
        return None

    return await until_known(connection, ask) or forgotten()


async def _describe(
    connection: Connection, activity_id: str, run_id: str, timeout: timedelta
) -> DescribeActivityExecutionResponse:
    request = DescribeActivityExecutionRequest(
        namespace=connection.namespace, activity_id=activity_id, run_id=run_id, include_outcome=True
    )
    return await connection.client.workflow_service.describe_activity_execution(request, timeout=timeout)


def _ending(described: DescribeActivityExecutionResponse) -> Ending:
    status = _STATUSES.get(described.info.status, "failed")
    closed_at, outcome = described.info.close_time.ToDatetime(tzinfo=UTC), described.outcome
    if status == "completed":
        return Ending(status, closed_at, result=outcome.result)
    if status == "terminated":
        return Ending(status, closed_at, reason=outcome.failure.message)
    return Ending(status, closed_at, failure=None if status == "canceled" else outcome.failure)
