"""Failures of calls to Temporal: what they say of the server, the workflow and a retry."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import (
    NamespaceNotFoundFailure,
    ResourceExhaustedFailure,
    WorkflowNotReadyFailure,
)
from temporalio.service import RPCError, RPCStatusCode

from wakeline.retry import Backoff

T = TypeVar("T")
RPC_TIMEOUT: Final = timedelta(seconds=10)
# A server that starts may answer once that it does not have a run; this many answers in a row are believed.
UNKNOWN_TIMES: Final = 3

# FAILED_PRECONDITION is transient for reads only: no worker is there, or the workflow task has failed.
_TRANSIENT: Final = frozenset(
    {
        RPCStatusCode.ABORTED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.DATA_LOSS,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.OUT_OF_RANGE,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.UNKNOWN,
    }
)
_TRANSIENT_IN_READING: Final = _TRANSIENT | {RPCStatusCode.FAILED_PRECONDITION}
# These causes concern one busy workflow, not the server.
_OF_ONE_WORKFLOW: Final = (
    ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW,
    ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_CONCURRENT_LIMIT,
)
# The message of an update whose run was closed or unloaded. Its status, UNAVAILABLE, says nothing of the server.
_UPDATE_ABORTED: Final = "update was aborted"


def is_transient(error: RPCError, *, reading: bool = False) -> bool:
    """Return whether the same call may succeed later."""
    statuses = _TRANSIENT_IN_READING if reading else _TRANSIENT
    return error.status in statuses and not is_too_large(error.message)


def is_too_large(message: str) -> bool:
    """Return whether a failure's message says that something was too large."""
    text = message.lower()
    return "size exceeds limit" in text or ("message" in text and ("larger than max" in text or "too large" in text))


def is_signal_limit(error: RPCError) -> bool:
    """Return whether a signal was refused because its run has accepted as many as it may."""
    return error.status == RPCStatusCode.INVALID_ARGUMENT and "limit for signal events" in error.message.lower()


def is_let_go(error: RPCError) -> bool:
    """Return whether the server dropped an update before it was in the workflow.

    It does so with those that wait when it refuses another one.
    """
    return error.status == RPCStatusCode.UNAVAILABLE and _UPDATE_ABORTED in error.message


def is_unavailable(error: RPCError) -> bool:
    """Return whether Temporal cannot be reached, or cannot answer at all."""
    return error.status == RPCStatusCode.UNAVAILABLE and not is_let_go(error)


def is_no_namespace(error: RPCError) -> bool:
    """Return whether Temporal does not have the namespace."""
    return error.status == RPCStatusCode.NOT_FOUND and _detail(error, NamespaceNotFoundFailure) is not None


def is_forgotten(error: RPCError) -> bool:
    """Return whether Temporal does not have the run, such as after its retention."""
    return error.status == RPCStatusCode.NOT_FOUND and not is_no_namespace(error)


async def unless_forgotten(call: Awaitable[T]) -> T | None:
    """Await a call about a run, and return its answer; None if Temporal does not have the run."""
    try:
        return await call
    except RPCError as error:
        if not is_forgotten(error):
            raise
        return None


def is_throttled(error: RPCError) -> bool:
    """Return whether Temporal has too many calls; one workflow with too much to do is no sign."""
    if error.status != RPCStatusCode.RESOURCE_EXHAUSTED:
        return False
    failure = _detail(error, ResourceExhaustedFailure)
    return failure is None or failure.cause not in _OF_ONE_WORKFLOW


def is_busy(error: RPCError) -> bool:
    """Return whether one workflow cannot accept a call now.

    It has too much to do, or it was closed while it had the call.
    """
    failure = _detail(error, ResourceExhaustedFailure) if error.status == RPCStatusCode.RESOURCE_EXHAUSTED else None
    return failure is not None and failure.cause == ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW


def is_not_ready(error: RPCError) -> bool:
    """Return whether a workflow cannot be asked yet.

    No worker has accepted a task of it, or its task has failed.
    """
    return error.status == RPCStatusCode.FAILED_PRECONDITION and _detail(error, WorkflowNotReadyFailure) is not None


def backoff() -> Backoff:
    """Return the pauses between calls to Temporal that failed."""
    return Backoff(0.2, 5.0)


def _detail(error: RPCError, kind: type[Any]) -> Any:
    try:
        for detail in error.grpc_status.details:
            if detail.Is(kind.DESCRIPTOR):
                found = kind()
                detail.Unpack(found)
                return found
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, without making protobuf a dependency of ours
        pass
    return None
