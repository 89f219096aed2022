"""The calls to Temporal that start an input's workflow, once for each key.

Temporal recognises a repeated start only while the workflow's latest run is the one that it began. After that only the header
of a run's first event shows which input began it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.enums.v1 import UpdateWorkflowExecutionLifecycleStage as Stage
from temporalio.api.errordetails.v1 import MultiOperationExecutionFailure
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import ExecuteMultiOperationRequest
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.inputs.calls import (
    CLOCKS,
    TIMEOUT,
    has_key,
    is_aborted,
    outcome_of,
    payloads,
    seen_of,
    start_request,
    unanswered,
    update_request,
)
from wakeline.gateway.inputs.steps import At, Free, Outcome, Seen, Unanswered
from wakeline.gateway.reaching import Connection, can_be_quoted, quoted
from wakeline.gateway.sessions import Intent, Starting
from wakeline.temporal.chains import first_event
from wakeline.temporal.failures import unless_forgotten

# An update that no worker accepts in this time is waited for at its run, which is followed by then.
_ACCEPTED_TIMEOUT: Final = timedelta(seconds=5)
_MOST_RUNS: Final = 100


async def find(connection: Connection, intent: Intent, after: str, *, unsure: bool) -> Seen:
    """Find the run that an input has begun, or the open run of its workflow.

    Args:
        connection: Temporal.
        intent: The input.
        after: The latest run of the workflow when it was found last; that run has ended. Empty if there was none.
        unsure: Whether the workflow may have been started since.
    """
    await connection.until_calm()
    try:
        latest = await _latest(connection, intent)
        if latest is None:
            return Free("")
        if unsure and latest.execution.run_id != after:
            begun = await _begun(connection, intent, latest)
            if begun is None:
                return Unanswered()
            if begun:
                return At(begun)
    except RPCError as error:
        return unanswered(error)
    run_id = latest.execution.run_id
    if latest.HasField("close_time"):
        return Free(run_id)
    fails = intent.kind == "start" and intent.starting is not None and intent.starting.id_conflict == "fail"
    return _refused("a run of it is open") if fails else At(run_id)


async def start(connection: Connection, intent: Intent, starting: Starting, after: str) -> Seen:
    """Start an input's workflow; a repetition has no effect while its run is the latest.

    Args:
        connection: Temporal.
        intent: The input.
        starting: How it starts the workflow.
        after: The latest run of the workflow when it was found last.

    Raises:
        EncodingFailedError: The gateway's codec cannot encode the arguments.
    """
    request = await start_request(connection, intent, starting)
    args = await payloads(connection, intent, intent.args)
    await connection.until_calm()
    service = connection.client.workflow_service
    try:
        if intent.kind != "update":
            begun = await service.start_workflow_execution(request, timeout=TIMEOUT)
            return At(begun.run_id)
        stage = Stage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_ACCEPTED
        operation = ExecuteMultiOperationRequest.Operation
        both = ExecuteMultiOperationRequest(
            namespace=connection.namespace,
            operations=[
                operation(start_workflow=request),
                operation(update_workflow=update_request(connection, intent, "", args, stage)),
            ],
        )
        started, updated = (await service.execute_multi_operation(both, timeout=_ACCEPTED_TIMEOUT)).responses
    except RPCError as error:
        cause = _cause(error)
        if cause.status == RPCStatusCode.ALREADY_EXISTS:
            return await _in_the_way(connection, intent, after, cause.message)
        return seen_of(cause)
    update = updated.update_workflow
    known = update.HasField("outcome") and not is_aborted(update.outcome)
    outcome = await outcome_of(connection, intent, update.outcome) if known else None
    return At(started.start_workflow.run_id, outcome)


async def _in_the_way(connection: Connection, intent: Intent, after: str, message: str) -> Seen:
    """Return the refusal by the rule's policy, unless another run has begun since `after`."""
    try:
        latest = await _latest(connection, intent)
    except RPCError as error:
        return unanswered(error)
    return _refused(message) if latest is not None and latest.execution.run_id == after else Unanswered()


async def _latest(connection: Connection, intent: Intent) -> WorkflowExecutionInfo | None:
    """Return the workflow's latest run; None if Temporal has none."""
    handle = connection.client.get_workflow_handle(intent.workflow_id)
    described = await unless_forgotten(handle.describe(rpc_timeout=TIMEOUT))
    return None if described is None else described.raw_description.workflow_execution_info


async def _begun(connection: Connection, intent: Intent, latest: WorkflowExecutionInfo) -> str | None:
    """Return the run that an input has begun; empty if there is none, None if that is unknown.

    It is nearly always the first run of the latest chain. If that is another one, all runs that have started since the input
    was accepted are read. A listing without the latest run may lack others, too.
    """
    first = latest.first_run_id or latest.execution.run_id
    if await _is_begun(connection, intent, first):
        return first
    since = datetime.fromtimestamp(intent.accepted_at - CLOCKS, UTC)
    if latest.start_time.ToDatetime(tzinfo=UTC) < since or not can_be_quoted(intent.workflow_id):
        return ""
    query = f"WorkflowId = {quoted(intent.workflow_id)} AND StartTime >= '{since.isoformat()}'"
    run_ids = [run.run_id async for run in connection.client.list_workflows(query, limit=_MOST_RUNS)]
    for run_id in run_ids:
        if await _is_begun(connection, intent, run_id):
            return run_id
    return "" if latest.execution.run_id in run_ids else None


async def _is_begun(connection: Connection, intent: Intent, run_id: str) -> bool:
    """Return whether an input has begun this run, as the first of a chain."""
    event = await unless_forgotten(first_event(connection.client, intent.workflow_id, run_id))
    if event is None:
        return False
    started: WorkflowExecutionStartedEventAttributes = event.workflow_execution_started_event_attributes
    return started.first_execution_run_id == run_id and has_key(started.header.fields, intent)


def _refused(reason: str) -> Outcome:
    return Outcome.rejected("WorkflowAlreadyStarted", f"the workflow was not started: {reason}")


def _cause(error: RPCError) -> RPCError:
    """Return why a call failed; of a start with an update, why the one of them failed that did."""
    failure = MultiOperationExecutionFailure()
    details = error.grpc_status.details
    if details and details[0].Unpack(failure):
        for status in failure.statuses:
            if status.code not in (RPCStatusCode.OK, RPCStatusCode.ABORTED):
                whole = GrpcStatus(code=status.code, message=status.message, details=status.details)
                return RPCError(status.message, RPCStatusCode(status.code), whole.SerializeToString())
    return error
