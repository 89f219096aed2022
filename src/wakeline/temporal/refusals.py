"""Refused queries and updates: what each says of the workflow, its worker and the server.

The gateway's reader and the readers of `wakeline.streams` decide by the same reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

from temporalio.client import (
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError, RPCStatusCode

from wakeline.temporal.failures import is_busy, is_let_go, is_not_ready, is_too_large, is_transient

# The names of a stream's handlers, and the types with which its host fails a poll by update.
POLL: Final = "__temporal_workflow_stream_poll"
OFFSET_QUERY: Final = "__temporal_workflow_stream_offset"
STREAM_DRAINING: Final = "StreamDraining"
TRUNCATED_OFFSET: Final = "TruncatedOffset"

# The messages of the SDKs for a query without a handler: Python and TypeScript, Go, Java. The others name the query.
_NO_QUERY: Final = re.compile(
    rf"did not register a handler|Query handler .* expected but not found|unknown query ?type|{POLL}", re.IGNORECASE
)
# The message of every failure of a worker that encodes failures. A stream that is read by query never fails so.
_ENCODED: Final = "Encoded failure"


class Refusal(Enum):
    """Why a query or an update has no answer."""

    NO_HANDLER = "the workflow's code does not have it"
    NOT_BY_QUERY = "the workflow hosts a stream that is read by update alone"
    ENCODED = "the workflow has failed at it, and the reason is encoded"
    FAILED = "the workflow has failed at it"
    TRUNCATED = "the offset is before the oldest event"
    DRAINING = "the run is about to continue as new"
    CANCELED = "the workflow was canceled and cleans up"
    UNDONE = "the workflow did not come to the update"
    TOO_LARGE = "the answer is larger than any may be"
    NEVER_BEGAN = "the run was closed before its code ran once"
    NOT_READY = "no worker has accepted a task of the run yet, or its task has failed"
    BUSY = "the workflow has too much to do"
    FULL = "as many updates wait in the workflow as may"
    USED_UP = "the run has accepted as many updates as it may"
    DROPPED = "the server dropped the update before it was in the workflow"
    ABSENT = "Temporal does not have the run or the namespace"
    LATER = "the same call may succeed later"
    NEVER = "the same call fails for good"

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later."""
        return self in _TRANSIENT


_TRANSIENT: Final = frozenset(
    {
        Refusal.DRAINING,
        Refusal.CANCELED,
        Refusal.UNDONE,
        Refusal.NEVER_BEGAN,
        Refusal.NOT_READY,
        Refusal.BUSY,
        Refusal.FULL,
        Refusal.USED_UP,
        Refusal.DROPPED,
        Refusal.LATER,
    }
)
# By the type of the failure. The last two are the server's own: a worker has ended a workflow task and left the update
# undone, as happens in a throng, or the run has ended first.
_OF_UPDATES: Final = {
    TRUNCATED_OFFSET: Refusal.TRUNCATED,
    STREAM_DRAINING: Refusal.DRAINING,
    "UnprocessedUpdate": Refusal.UNDONE,
    "AcceptedUpdateCompletedWorkflow": Refusal.UNDONE,
}
# In this order: a message or a detail says more than the status.
_OF_CALLS: Final[tuple[tuple[Callable[[RPCError], bool], Refusal], ...]] = (
    (lambda error: "closed before WorkflowTaskStarted" in error.message, Refusal.NEVER_BEGAN),
    (lambda error: "total number of distinct updates" in error.message, Refusal.USED_UP),
    (lambda error: _is(error, RPCStatusCode.RESOURCE_EXHAUSTED, "in-flight updates"), Refusal.FULL),
    (lambda error: _is(error, RPCStatusCode.RESOURCE_EXHAUSTED, "query buffer is full"), Refusal.BUSY),
    (is_let_go, Refusal.DROPPED),
    (lambda error: is_too_large(error.message), Refusal.TOO_LARGE),
    (lambda error: _is(error, RPCStatusCode.NOT_FOUND), Refusal.ABSENT),
    (is_not_ready, Refusal.NOT_READY),
    (is_busy, Refusal.BUSY),
    (lambda error: is_transient(error, reading=True), Refusal.LATER),
)


# The errors of a query or an update that was refused.
REFUSED: Final = (
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    RPCError,
)


def refusal(error: Exception) -> Refusal:
    """Return what a failed query or update says."""
    match error:
        case WorkflowQueryFailedError():
            return _of_query(str(error))
        case WorkflowUpdateFailedError():
            return _of_update(error.cause)
        case WorkflowUpdateRPCTimeoutOrCancelledError():
            return Refusal.LATER
        case RPCError():
            return next((said for says, said in _OF_CALLS if says(error)), Refusal.NEVER)
    return Refusal.NEVER


def waiting_limit(error: RPCError) -> int:
    """Return how many updates may wait in a workflow, as a refusal says; 0 if it does not."""
    said = re.search(r"\((\d+)\)", error.message)
    return int(said[1]) if said else 0


def _of_query(message: str) -> Refusal:
    if _NO_QUERY.search(message):
        # The SDKs name the queries that there are, and each host of a stream has the other one.
        return Refusal.NOT_BY_QUERY if OFFSET_QUERY in message else Refusal.NO_HANDLER
    if message == _ENCODED:
        return Refusal.ENCODED
    return Refusal.TOO_LARGE if is_too_large(message) else Refusal.FAILED


def _of_update(cause: BaseException) -> Refusal:
    if isinstance(cause, CancelledError):
        return Refusal.CANCELED
    # Each SDK has a failure of its own for an update without a handler, and none of them has a type.
    kind = cause.type if isinstance(cause, ApplicationError) else None
    return _OF_UPDATES.get(kind or "", Refusal.NO_HANDLER)


def _is(error: RPCError, status: RPCStatusCode, text: str = "") -> bool:
    return error.status == status and text in error.message
