"""Which failures of a call to Temporal pass by themselves."""

from __future__ import annotations

import re

from temporalio.service import RPCError, RPCStatusCode

from wakeline.retry import Backoff

# FAILED_PRECONDITION and DEADLINE_EXCEEDED are for reading only: no worker there, or its workflow task failed.
_TRANSIENT = frozenset(
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
_TRANSIENT_IN_READING = _TRANSIENT | {RPCStatusCode.FAILED_PRECONDITION}


def is_too_large(message: str) -> bool:
    """Whether something was refused, by the server or on the way, for its size, as the failure's message has it."""
    text = message.lower()
    return "size exceeds limit" in text or ("message" in text and ("larger than max" in text or "too large" in text))


def is_signal_limit(error: RPCError) -> bool:
    """Whether a signal was refused because its run has taken as many as the server allows."""
    return error.status == RPCStatusCode.INVALID_ARGUMENT and "limit for signal events" in error.message.lower()


def is_update_limit(error: Exception) -> bool:
    """Whether an update was refused because its run has taken as many as the server allows."""
    return isinstance(error, RPCError) and "total number of distinct updates" in error.message


def is_waiting_limit(error: RPCError) -> bool:
    """Whether an update was refused because as many wait in the workflow as the server allows."""
    return error.status == RPCStatusCode.RESOURCE_EXHAUSTED and "in-flight updates" in error.message


def is_let_go(error: RPCError) -> bool:
    """Whether the server has let go of an update before it was in the workflow, such as when it refused another one."""
    return error.status == RPCStatusCode.UNAVAILABLE and "update was aborted" in error.message


def waiting_limit(error: RPCError) -> int:
    """How many updates may wait in a workflow, as one that was refused for it is told; 0 if it is not told."""
    told = re.search(r"\((\d+)\)", error.message)
    return int(told[1]) if told else 0


def is_transient(error: RPCError, *, reading: bool = False) -> bool:
    """Whether the same call may succeed later."""
    statuses = _TRANSIENT_IN_READING if reading else _TRANSIENT
    return error.status in statuses and not is_too_large(error.message)


def backoff() -> Backoff:
    """Return the pauses between calls to Temporal that failed."""
    return Backoff(0.2, 5.0)
