"""The requests by which inputs reach Temporal, and their answers.

They are made by hand: the high-level client chooses another request id for each call, and cannot set headers.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import timedelta
from typing import Final

import msgspec
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import UpdateWorkflowExecutionLifecycleStage as Stage
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.update.v1 import Input, Meta, Request, WaitPolicy
from temporalio.api.update.v1 import Outcome as UpdateOutcome
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest, UpdateWorkflowExecutionRequest
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.inputs.steps import Outcome, Unanswered
from wakeline.gateway.reaching import SESSION_MEMO, Connection, describe_failure, describe_result
from wakeline.gateway.sessions import Intent, Starting
from wakeline.streams.inputs import HEADER, LIFE_HEADER

MAX_RESULT_BYTES: Final = 64 * 1024
# Temporal holds an update's call for 20 seconds and then answers that it is not completed yet.
TIMEOUT: Final = timedelta(seconds=30)
CLOCKS: Final = 300.0
"""Seconds by which the clocks of gateways and of Temporal differ at most."""

ABORTED: Final = "AcceptedUpdateCompletedWorkflow"
"""The type of the failure of an update whose run ended before the update was completed."""

_FINAL: Final = (
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.OUT_OF_RANGE,
    RPCStatusCode.UNIMPLEMENTED,
)
_REFUSALS: Final = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)
_REUSE: Final = {
    "allow_duplicate": WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
    "allow_duplicate_failed_only": WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
    "reject_duplicate": WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
}


class EncodingFailedError(Exception):
    """The gateway's codec cannot encode an input's arguments, so the input was not sent."""


def unanswered(error: RPCError) -> Unanswered:
    """Return what is seen of an input when a call of it failed and may succeed later."""
    return Unanswered(error.status.name if error.status in _REFUSALS else "")


def seen_of(error: RPCError) -> Outcome | Unanswered:
    """Return what a failed call shows of an input: its rejection if others would fail, too."""
    return Outcome.rejected(error.status.name, error.message) if error.status in _FINAL else unanswered(error)


def update_request(
    connection: Connection, intent: Intent, run_id: str, args: Sequence[Payload], stage: Stage.ValueType
) -> UpdateWorkflowExecutionRequest:
    """Return the request of an update to a run, which is answered once the update is at a stage."""
    update = Input(name=intent.name)
    update.args.payloads.extend(args)
    put_key(update.header.fields, intent)
    return UpdateWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_execution=WorkflowExecution(workflow_id=intent.workflow_id, run_id=run_id),
        request=Request(meta=Meta(update_id=intent.temporal_id, identity=connection.client.identity), input=update),
        wait_policy=WaitPolicy(lifecycle_stage=stage),
    )


async def start_request(connection: Connection, intent: Intent, starting: Starting) -> StartWorkflowExecutionRequest:
    """Return the request that starts an input's workflow.

    The workflow names its session, so that it is followed there by any gateway.

    Raises:
        EncodingFailedError: The gateway's codec cannot encode the arguments.
    """
    request = StartWorkflowExecutionRequest(
        namespace=connection.namespace,
        workflow_id=intent.workflow_id,
        request_id=intent.temporal_id,
        identity=connection.client.identity,
        workflow_id_reuse_policy=_REUSE[starting.id_reuse],
        # An open run that somebody else has begun in between is found, and gets the input by its run id.
        workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
    )
    request.workflow_type.name = starting.workflow_type
    request.task_queue.name = starting.task_queue
    request.input.payloads.extend(await payloads(connection, intent, starting.args))
    put_key(request.header.fields, intent)
    if intent.workflow_id != intent.session:
        (session,) = await payloads(connection, intent, msgspec.json.encode([intent.session]))
        request.memo.fields[SESSION_MEMO].CopyFrom(session)
    return request


async def payloads(connection: Connection, intent: Intent, args: bytes) -> Sequence[Payload]:
    """Return arguments as they go to the input's workflow, encoded if the gateway has a codec.

    Raises:
        EncodingFailedError: The codec cannot encode them.
    """
    values = msgspec.json.decode(args, type=list[msgspec.Raw])
    plain = [Payload(metadata={"encoding": b"json/plain"}, data=bytes(value)) for value in values]
    converter = connection.converter_of(intent.workflow_id)
    if converter is None or converter.payload_codec is None:
        return plain
    try:
        return await converter.payload_codec.encode(plain)
    except Exception as error:  # a codec may raise anything
        raise EncodingFailedError(type(error).__name__) from error


def put_key(fields: MutableMapping[str, Payload], intent: Intent) -> None:
    """Put the key and the life of an input into the headers of its message."""
    for name, value in ((HEADER, intent.id), (LIFE_HEADER, intent.life)):
        fields[name].CopyFrom(_payload(value))


def has_key(fields: Mapping[str, Payload], intent: Intent) -> bool:
    """Return whether a message has the key and the life of an input in its headers."""
    expected = ((HEADER, intent.id), (LIFE_HEADER, intent.life))
    return all(name in fields and fields[name].data == _payload(value).data for name, value in expected)


def _payload(value: str) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=msgspec.json.encode(value))


def is_aborted(outcome: UpdateOutcome) -> bool:
    """Return whether an update's run ended before it was completed; the next may have it."""
    return outcome.failure.application_failure_info.type == ABORTED


async def outcome_of(connection: Connection, intent: Intent, outcome: UpdateOutcome) -> Outcome:
    """Return the outcome of an update as it is reported."""
    converter = connection.converter_of(intent.workflow_id)
    if outcome.HasField("failure"):
        return Outcome("rejected", {"failure": await describe_failure(converter, outcome.failure)})
    return Outcome("completed", await describe_result(converter, outcome.success, MAX_RESULT_BYTES))
