"""The calls of an input to Temporal: send it to a run, or look for it in the run's history.

Sending is repeated with the same ids, so that Temporal itself recognises a repetition within one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.enums.v1 import UpdateWorkflowExecutionLifecycleStage as Stage
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    RequestCancelWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.inputs.asked import ALONE
from wakeline.gateway.inputs.calls import (
    ABORTED,
    CLOCKS,
    TIMEOUT,
    has_key,
    is_aborted,
    outcome_of,
    payloads,
    put_key,
    seen_of,
    unanswered,
    update_request,
)
from wakeline.gateway.inputs.steps import Absent, Failing, Forgotten, NotOpen, Outcome, Seen, StillOpen, Unanswered
from wakeline.gateway.reaching import Connection
from wakeline.gateway.sessions import Intent, Run
from wakeline.streams.inputs import HEADER
from wakeline.temporal.endings import complete, events_back, is_closing, read_ending
from wakeline.temporal.failures import is_busy, is_forgotten, is_not_ready

# The outcome of an update whose run ended first, as Temporal reports it.
_BEGUN: Final = Outcome.rejected(ABORTED, "the run ended before the update was completed")


async def send(connection: Connection, intent: Intent, run_id: str) -> Seen:
    """Send an input to one Temporal run; the same call again has no second effect there.

    Raises:
        EncodingFailedError: The gateway's codec cannot encode the arguments.
    """
    if intent.kind == "start":  # the run that it is for is the one that it started or found
        return Outcome("completed", {"result": {"run": intent.run, "workflow_id": intent.workflow_id}})
    args = await payloads(connection, intent, intent.args)
    await connection.until_calm()
    try:
        if intent.kind == "update":
            return await _update(connection, intent, run_id, args)
        await _CALLS[intent.kind](connection, intent, run_id, args)
        if intent.kind == "cancel" and not await _is_cancelled(connection, intent, run_id):
            return NotOpen()
    except RPCError as error:
        if intent.kind == "cancel" and error.status == RPCStatusCode.ALREADY_EXISTS:
            return Outcome("completed")  # the run is open, and somebody else has requested it
        # An update that a run had when it was closed gets "busy" from that run for as long as the server keeps it in memory.
        if is_forgotten(error) or is_busy(error):
            return NotOpen()
        if is_not_ready(error):
            return Failing()
        return seen_of(error)
    return Outcome("completed")


async def look(connection: Connection, intent: Intent, run: Run) -> Seen:
    """Look for an input in the history of one Temporal run, `run.run_id`.

    A worker is not needed. An update that was accepted and not completed by a run that has ended was begun by its handler. If
    that run was reset, its outcome is the next run's, which has the update again or gets it now.
    """
    handle: WorkflowHandle[Any, Any] = connection.client.get_workflow_handle(intent.workflow_id, run_id=run.run_id)
    found: Outcome | None = None
    last: HistoryEvent | None = None
    await connection.until_calm()
    try:
        if intent.kind in ALONE:
            return await _look_back(connection, intent, run)
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=TIMEOUT):
            found = await _read(connection, intent, event) or found
            last = event
        if found is not None and found != _BEGUN:
            return found
        if last is None or not is_closing(last):
            return StillOpen(begun=found is not None)
        ending = await complete(connection.client, run.workflow_id, run.run_id, read_ending(last))
    except RPCError as error:
        return Forgotten() if is_forgotten(error) else unanswered(error)
    return found if found is not None and ending.follows_by != "reset" else Absent(ending.next_run_id)


async def _look_back(connection: Connection, intent: Intent, run: Run) -> Seen:
    """Look for a cancel or a termination, from the end of the history down to older events.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    last: HistoryEvent | None = None
    async for event in events_back(connection.client, intent.workflow_id, run.run_id):
        if _has(event, intent):
            return Outcome("completed")
        last = last or event
        if intent.kind == "terminate" or event.event_time.ToNanoseconds() < (intent.accepted_at - CLOCKS) * 1e9:
            break
    if last is None or not is_closing(last):
        return StillOpen()
    return Absent((await complete(connection.client, run.workflow_id, run.run_id, read_ending(last))).next_run_id)


async def _is_cancelled(connection: Connection, intent: Intent, run_id: str) -> bool:
    """Return whether a request to cancel that has succeeded had an effect.

    To cancel a run that has ended is a success for Temporal, also if its chain goes on. A run that is still open has the request.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    handle: WorkflowHandle[Any, Any] = connection.client.get_workflow_handle(intent.workflow_id, run_id=run_id)
    described = await handle.describe(rpc_timeout=TIMEOUT)
    return described.close_time is None or described.raw_description.workflow_extended_info.cancel_requested


async def _signal(connection: Connection, intent: Intent, run_id: str, args: Sequence[Payload]) -> None:
    request = SignalWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        signal_name=intent.name,
        identity=connection.client.identity,
        request_id=intent.temporal_id,
    )
    request.input.payloads.extend(args)
    put_key(request.header.fields, intent)
    await connection.client.workflow_service.signal_workflow_execution(request, timeout=TIMEOUT)


async def _cancel(connection: Connection, intent: Intent, run_id: str, _: Sequence[Payload]) -> None:
    request = RequestCancelWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        identity=_identity(intent),
        request_id=intent.temporal_id,
        reason=_reason(intent),
    )
    await connection.client.workflow_service.request_cancel_workflow_execution(request, timeout=TIMEOUT)


async def _terminate(connection: Connection, intent: Intent, run_id: str, _: Sequence[Payload]) -> None:
    request = TerminateWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        identity=_identity(intent),
        reason=_reason(intent),
    )
    await connection.client.workflow_service.terminate_workflow_execution(request, timeout=TIMEOUT)


async def _update(connection: Connection, intent: Intent, run_id: str, args: Sequence[Payload]) -> Seen:
    stage = Stage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED
    request = update_request(connection, intent, run_id, args, stage)
    answer = await connection.client.workflow_service.update_workflow_execution(request, timeout=TIMEOUT)
    if is_aborted(answer.outcome):
        return NotOpen()
    return await outcome_of(connection, intent, answer.outcome) if answer.HasField("outcome") else Unanswered()


async def _read(connection: Connection, intent: Intent, event: HistoryEvent) -> Outcome | None:
    """Return what one event of a history says of an input; None if it is about something else."""
    if intent.kind != "update":
        return Outcome("completed") if _has(event, intent) else None
    if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
        # Of an update that a reset has applied again, this event has the id alone.
        accepted = event.workflow_execution_update_accepted_event_attributes
        return _BEGUN if accepted.protocol_instance_id == intent.temporal_id else None
    if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
        completed = event.workflow_execution_update_completed_event_attributes
        return (
            await outcome_of(connection, intent, completed.outcome)
            if completed.meta.update_id == intent.temporal_id
            else None
        )
    return None


def _has(event: HistoryEvent, intent: Intent) -> bool:
    """Return whether an event is that of a signal, a cancel or a termination."""
    match intent.kind:
        case "signal":
            return has_key(event.workflow_execution_signaled_event_attributes.header.fields, intent)
        case "cancel":
            return event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
        case _:
            return event.workflow_execution_terminated_event_attributes.identity == _identity(intent)


def _identity(intent: Intent) -> str:
    """Return who cancels or terminates a run: the history has no other place for the key."""
    return f"{HEADER}:{intent.temporal_id}"


def _reason(intent: Intent) -> str:
    return f"requested through Wakeline by {intent.by}" if intent.by else "requested through Wakeline"


_CALLS: Final = {"signal": _signal, "cancel": _cancel, "terminate": _terminate}
