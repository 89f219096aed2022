"""What a refused query or update says, by the messages of the SDKs and of the server."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.message import Message
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure, ResourceExhaustedFailure, WorkflowNotReadyFailure
from temporalio.client import (
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, CancelledError, TimeoutError
from temporalio.service import RPCError, RPCStatusCode

from wakeline.temporal.refusals import Refusal, refusal, waiting_limit

CLOSING = ResourceExhaustedFailure(cause=ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW)
WAITING = ResourceExhaustedFailure(cause=ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_CONCURRENT_LIMIT)
TOO_MANY = "limit on number of concurrent in-flight updates has been reached (10)"
POLL, OTHER = "__temporal_workflow_stream_poll", "__temporal_workflow_stream_offset"


def query(message: str) -> Exception:
    return WorkflowQueryFailedError(message)


def update(message: str, kind: str | None = None) -> Exception:
    return WorkflowUpdateFailedError(ApplicationError(message, type=kind))


def call(status: RPCStatusCode, message: str, detail: Message | None = None) -> RPCError:
    packed = Detail()
    if detail is not None:
        packed.Pack(detail)
    return RPCError(message, status, GrpcStatus(details=[packed] if detail else []).SerializeToString())


S = RPCStatusCode
ROWS: list[tuple[str, Exception, Refusal]] = [
    (
        "Python: no stream",
        query(f"Query handler for '{POLL}' expected but not found, known queries: [a]"),
        Refusal.NO_HANDLER,
    ),
    (
        "Python: a stream that is read by update",
        query(f"Query handler for '{POLL}' expected but not found, known queries: [{OTHER}]"),
        Refusal.NOT_BY_QUERY,
    ),
    (
        "TypeScript: a stream that is read by update",
        query(f"Workflow did not register a handler for {POLL}. Registered queries: [{OTHER}]"),
        Refusal.NOT_BY_QUERY,
    ),
    ("Go: no stream", query(f"unknown queryType {POLL}. KnownQueryTypes=[__stack_trace]"), Refusal.NO_HANDLER),
    ("Java: no stream", query(f"Unknown query type: {POLL}, knownTypes=[]"), Refusal.NO_HANDLER),
    ("another SDK names the query", query(f"nothing answers {POLL}"), Refusal.NO_HANDLER),
    ("a worker that encodes failures", query("Encoded failure"), Refusal.ENCODED),
    ("an answer larger than a worker may give", query("query result size exceeds limit"), Refusal.TOO_LARGE),
    ("code that fails at a query", query("division by zero"), Refusal.FAILED),
    ("code that mentions an encoded failure", query("got an Encoded failure"), Refusal.FAILED),
    ("an offset that is gone", update("truncated", "TruncatedOffset"), Refusal.TRUNCATED),
    ("a host that continues as new", update("draining", "StreamDraining"), Refusal.DRAINING),
    ("a host that cleans up", WorkflowUpdateFailedError(CancelledError("canceled")), Refusal.CANCELED),
    ("a task that left the update undone", update("not processed by worker", "UnprocessedUpdate"), Refusal.UNDONE),
    ("a run that ended first", update("completed before", "AcceptedUpdateCompletedWorkflow"), Refusal.UNDONE),
    ("no handler of the update", update("unknown update"), Refusal.NO_HANDLER),
    (
        "a failure of no SDK",
        WorkflowUpdateFailedError(TimeoutError("late", type=None, last_heartbeat_details=[])),
        Refusal.NO_HANDLER,
    ),
    ("an update that was cut off", WorkflowUpdateRPCTimeoutOrCancelledError(), Refusal.LATER),
    (
        "a run without a first task",
        call(S.FAILED_PRECONDITION, "Workflow was closed before WorkflowTaskStarted event", WorkflowNotReadyFailure()),
        Refusal.NEVER_BEGAN,
    ),
    ("a task that fails", call(S.FAILED_PRECONDITION, "in failed state", WorkflowNotReadyFailure()), Refusal.NOT_READY),
    ("a worker that is not there", call(S.FAILED_PRECONDITION, "no poller seen"), Refusal.LATER),
    ("all places taken", call(S.RESOURCE_EXHAUSTED, TOO_MANY, WAITING), Refusal.FULL),
    (
        "all updates used up",
        call(S.RESOURCE_EXHAUSTED, "limit on the total number of distinct updates in this workflow", WAITING),
        Refusal.USED_UP,
    ),
    ("a task under way", call(S.RESOURCE_EXHAUSTED, "consistent query buffer is full"), Refusal.BUSY),
    ("a run that is being closed", call(S.RESOURCE_EXHAUSTED, "closing", CLOSING), Refusal.BUSY),
    ("a server with too many calls", call(S.RESOURCE_EXHAUSTED, "namespace rate limit exceeded"), Refusal.LATER),
    ("an answer that no call may bring", call(S.RESOURCE_EXHAUSTED, "message larger than max"), Refusal.TOO_LARGE),
    ("an update that was dropped", call(S.UNAVAILABLE, "workflow update was aborted"), Refusal.DROPPED),
    ("a server that is away", call(S.UNAVAILABLE, "connection refused"), Refusal.LATER),
    ("a call that took too long", call(S.DEADLINE_EXCEEDED, "timeout"), Refusal.LATER),
    ("a run that is gone", call(S.NOT_FOUND, "workflow not found for ID: a"), Refusal.ABSENT),
    ("a namespace that is gone", call(S.NOT_FOUND, "Namespace", NamespaceNotFoundFailure()), Refusal.ABSENT),
    ("a key that may not", call(S.PERMISSION_DENIED, "Not for you."), Refusal.NEVER),
    ("a call that nobody knows", call(S.UNIMPLEMENTED, "unknown method"), Refusal.NEVER),
    ("an error of no class", ValueError("x"), Refusal.NEVER),
]


@pytest.mark.parametrize(("error", "said"), [pytest.param(error, said, id=name) for name, error, said in ROWS])
def test_what_a_refusal_says(error: Exception, said: Refusal) -> None:
    assert refusal(error) is said


def test_only_a_refusal_that_may_pass_is_asked_for_again() -> None:
    for_good = {
        Refusal.NO_HANDLER,
        Refusal.NOT_BY_QUERY,
        Refusal.ENCODED,
        Refusal.FAILED,
        Refusal.TRUNCATED,
        Refusal.TOO_LARGE,
        Refusal.ABSENT,
        Refusal.NEVER,
    }
    assert {said for said in Refusal if not said.is_transient} == for_good


def test_a_refusal_says_how_many_updates_may_wait() -> None:
    assert waiting_limit(call(S.RESOURCE_EXHAUSTED, TOO_MANY)) == 10
    assert waiting_limit(call(S.RESOURCE_EXHAUSTED, "in-flight updates")) == 0
