"""The calls of an input to Temporal: send it to a run, or look for it in the run's history.

Sending is repeated with the same ids, so that Temporal itself recognises a repetition within one run. The high-level client
chooses another request id for each signal, and cannot set headers; so both requests are made by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType, UpdateWorkflowExecutionLifecycleStage
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.update.v1 import Input, Meta, Request, WaitPolicy
from temporalio.api.update.v1 import Outcome as UpdateOutcome
from temporalio.api.workflowservice.v1 import (
    RequestCancelWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
    UpdateWorkflowExecutionRequest,
)
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.following import (
    Connection,
    complete,
    describe_failure,
    describe_result,
    is_closing,
    is_forgotten,
    read_ending,
)
from wakeline.gateway.inputs.steps import Absent, Forgotten, NotOpen, Outcome, Seen, StillOpen, Unanswered
from wakeline.gateway.sessions import Intent, Run
from wakeline.streams.inputs import HEADER

MAX_RESULT_BYTES: Final = 64 * 1024
# Temporal holds an update's call for 20 seconds and then answers that it is not completed yet.
_TIMEOUT: Final = timedelta(seconds=30)
# Temporal will not accept the input, however often it is sent.
_FINAL: Final = (
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.OUT_OF_RANGE,
    RPCStatusCode.UNIMPLEMENTED,
)


async def send(connection: Connection, intent: Intent, run_id: str) -> Seen:
    """Send an input to one Temporal run; the same call again has no second effect there.

    Raises:
        Exception: The gateway's codec cannot encode the arguments.
    """
    args = await _payloads(connection, intent)
    await connection.until_calm()
    try:
        if intent.kind == "update":
            return await _update(connection, intent, run_id, args)
        await _CALLS[intent.kind](connection, intent, run_id, args)
    except RPCError as error:
        if intent.kind == "cancel" and error.status == RPCStatusCode.ALREADY_EXISTS:
            return NotOpen()  # somebody else has requested it, which its history shows
        if is_forgotten(error):
            return NotOpen()
        if error.status in _FINAL:
            return Outcome("rejected", {"failure": {"message": error.message, "type": error.status.name}})
        return Unanswered()
    # To cancel a run that has ended is a success for Temporal, also if its chain goes on: only the history shows the effect.
    return NotOpen() if intent.kind == "cancel" else Outcome("completed")


async def look(connection: Connection, intent: Intent, run: Run) -> Seen:
    """Look for an input in the history of one Temporal run, `run.run_id`.

    A worker is not needed. An update that was accepted and not completed by a run that has ended was begun by its handler.
    """
    handle: WorkflowHandle[Any, Any] = connection.client.get_workflow_handle(intent.workflow_id, run_id=run.run_id)
    found: Outcome | None = None
    last: HistoryEvent | None = None
    await connection.until_calm()
    try:
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=_TIMEOUT):
            found = await _read(connection, intent, event) or found
            last = event
        if found is not None:
            return found
        if last is None or not is_closing(last):
            return StillOpen()
        ending = await complete(connection.client, run, read_ending(last))
    except RPCError as error:
        return Forgotten() if is_forgotten(error) else Unanswered()
    return Absent(ending.next_run_id)


async def _signal(connection: Connection, intent: Intent, run_id: str, args: Sequence[Payload]) -> None:
    request = SignalWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        signal_name=intent.name,
        identity=connection.client.identity,
        request_id=intent.id,
    )
    request.input.payloads.extend(args)
    request.header.fields[HEADER].CopyFrom(_key_payload(intent))
    await connection.client.workflow_service.signal_workflow_execution(request, timeout=_TIMEOUT)


async def _cancel(connection: Connection, intent: Intent, run_id: str, _: Sequence[Payload]) -> None:
    request = RequestCancelWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        identity=_identity(intent),
        request_id=intent.id,
        reason=_reason(intent),
    )
    await connection.client.workflow_service.request_cancel_workflow_execution(request, timeout=_TIMEOUT)


async def _terminate(connection: Connection, intent: Intent, run_id: str, _: Sequence[Payload]) -> None:
    request = TerminateWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        identity=_identity(intent),
        reason=_reason(intent),
    )
    await connection.client.workflow_service.terminate_workflow_execution(request, timeout=_TIMEOUT)


async def _update(connection: Connection, intent: Intent, run_id: str, args: Sequence[Payload]) -> Seen:
    update = Input(name=intent.name)
    update.args.payloads.extend(args)
    update.header.fields[HEADER].CopyFrom(_key_payload(intent))
    request = UpdateWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        request=Request(meta=Meta(update_id=intent.id, identity=connection.client.identity), input=update),
        wait_policy=WaitPolicy(
            lifecycle_stage=UpdateWorkflowExecutionLifecycleStage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED
        ),
    )
    answer = await connection.client.workflow_service.update_workflow_execution(request, timeout=_TIMEOUT)
    return await _outcome(connection, intent, answer.outcome) if answer.HasField("outcome") else Unanswered()


async def _read(connection: Connection, intent: Intent, event: HistoryEvent) -> Outcome | None:
    """Return what one event of a history says of an input; None if it is about something else."""
    if intent.kind != "update":
        return Outcome("completed") if _has(event, intent) else None
    if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
        accepted = event.workflow_execution_update_accepted_event_attributes.accepted_request
        return _begun() if accepted.meta.update_id == intent.id else None
    if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
        completed = event.workflow_execution_update_completed_event_attributes
        return await _outcome(connection, intent, completed.outcome) if completed.meta.update_id == intent.id else None
    return None


def _has(event: HistoryEvent, intent: Intent) -> bool:
    """Return whether an event is that of a signal, a cancel or a termination."""
    match intent.kind:
        case "signal":
            fields = event.workflow_execution_signaled_event_attributes.header.fields
            return HEADER in fields and fields[HEADER].data == _key_payload(intent).data
        case "cancel":
            return event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
        case _:
            return event.workflow_execution_terminated_event_attributes.identity == _identity(intent)


async def _outcome(connection: Connection, intent: Intent, outcome: UpdateOutcome) -> Outcome:
    converter = connection.converter_of(intent.workflow_id)
    if outcome.HasField("failure"):
        return Outcome("rejected", {"failure": await describe_failure(converter, outcome.failure)})
    return Outcome("completed", await describe_result(converter, outcome.success, MAX_RESULT_BYTES))


def _begun() -> Outcome:
    """Return the outcome of an update whose run ended first, as Temporal reports it."""
    message = "the run ended before the update was completed"
    return Outcome("rejected", {"failure": {"message": message, "type": "AcceptedUpdateCompletedWorkflow"}})


async def _payloads(connection: Connection, intent: Intent) -> Sequence[Payload]:
    """Return the arguments as they go to the workflow, encoded if the gateway has a codec."""
    values = msgspec.json.decode(intent.args, type=list[msgspec.Raw])
    payloads = [Payload(metadata={"encoding": b"json/plain"}, data=bytes(value)) for value in values]
    converter = connection.converter_of(intent.workflow_id)
    if converter is None or converter.payload_codec is None:
        return payloads
    return await converter.payload_codec.encode(payloads)


def _key_payload(intent: Intent) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=msgspec.json.encode(intent.id))


def _identity(intent: Intent) -> str:
    """Return who cancels or terminates a run: the history has no other place for the key."""
    return f"{HEADER}:{intent.id}"


def _reason(intent: Intent) -> str:
    return f"requested through Wakeline by {intent.by}" if intent.by else "requested through Wakeline"


_CALLS: Final = {"signal": _signal, "cancel": _cancel, "terminate": _terminate}
