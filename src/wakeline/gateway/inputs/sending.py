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

from wakeline.gateway.following import (
    Connection,
    complete,
    is_busy,
    is_closing,
    is_forgotten,
    is_not_ready,
    read_ending,
)
from wakeline.gateway.inputs.calls import (
    ABORTED,
    TIMEOUT,
    is_aborted,
    is_final,
    key_payload,
    outcome_of,
    payloads,
    update_request,
)
from wakeline.gateway.inputs.steps import Absent, Failing, Forgotten, NotOpen, Outcome, Seen, StillOpen, Unanswered
from wakeline.gateway.sessions import Intent, Run
from wakeline.streams.inputs import HEADER

# The outcome of an update whose run ended first, as Temporal reports it.
_BEGUN: Final = Outcome(
    "rejected", {"failure": {"message": "the run ended before the update was completed", "type": ABORTED}}
)


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
    except RPCError as error:
        if intent.kind == "cancel" and error.status == RPCStatusCode.ALREADY_EXISTS:
            return NotOpen()  # somebody else has requested it, which its history shows
        # An update that a run had when it was closed gets "busy" from that run for as long as the server keeps it in memory.
        if is_forgotten(error) or is_busy(error):
            return NotOpen()
        if is_not_ready(error):
            return Failing()
        if is_final(error):
            return Outcome("rejected", {"failure": {"message": error.message, "type": error.status.name}})
        return Unanswered()
    # To cancel a run that has ended is a success for Temporal, also if its chain goes on: only the history shows the effect.
    return NotOpen() if intent.kind == "cancel" else Outcome("completed")


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
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=TIMEOUT):
            found = await _read(connection, intent, event) or found
            last = event
        if found is not None and found != _BEGUN:
            return found
        if last is None or not is_closing(last):
            return StillOpen(begun=found is not None)
        ending = await complete(connection.client, run, read_ending(last))
    except RPCError as error:
        return Forgotten() if is_forgotten(error) else Unanswered()
    return found if found is not None and ending.follows_by != "reset" else Absent(ending.next_run_id)


async def _signal(connection: Connection, intent: Intent, run_id: str, args: Sequence[Payload]) -> None:
    request = SignalWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        signal_name=intent.name,
        identity=connection.client.identity,
        request_id=intent.id,
    )
    request.input.payloads.extend(args)
    request.header.fields[HEADER].CopyFrom(key_payload(intent))
    await connection.client.workflow_service.signal_workflow_execution(request, timeout=TIMEOUT)


async def _cancel(connection: Connection, intent: Intent, run_id: str, _: Sequence[Payload]) -> None:
    request = RequestCancelWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        identity=_identity(intent),
        request_id=intent.id,
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
        return _BEGUN if accepted.protocol_instance_id == intent.id else None
    if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
        completed = event.workflow_execution_update_completed_event_attributes
        return (
            await outcome_of(connection, intent, completed.outcome) if completed.meta.update_id == intent.id else None
        )
    return None


def _has(event: HistoryEvent, intent: Intent) -> bool:
    """Return whether an event is that of a signal, a cancel or a termination."""
    match intent.kind:
        case "signal":
            fields = event.workflow_execution_signaled_event_attributes.header.fields
            return HEADER in fields and fields[HEADER].data == key_payload(intent).data
        case "cancel":
            return event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
        case _:
            return event.workflow_execution_terminated_event_attributes.identity == _identity(intent)


def _identity(intent: Intent) -> str:
    """Return who cancels or terminates a run: the history has no other place for the key."""
    return f"{HEADER}:{intent.id}"


def _reason(intent: Intent) -> str:
    return f"requested through Wakeline by {intent.by}" if intent.by else "requested through Wakeline"


_CALLS: Final = {"signal": _signal, "cancel": _cancel, "terminate": _terminate}
