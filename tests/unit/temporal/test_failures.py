"""What a failed call to Temporal says of the server, of the workflow and of the run."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.message import Message
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import (
    NamespaceNotFoundFailure,
    NotFoundFailure,
    ResourceExhaustedFailure,
    WorkflowNotReadyFailure,
)
from temporalio.service import RPCError, RPCStatusCode

from wakeline.temporal.failures import is_busy, is_forgotten, is_not_ready, is_unavailable

CLOSING = ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW
RATE = ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT


def failed(message: str, detail: Message | None, status: RPCStatusCode = RPCStatusCode.NOT_FOUND) -> RPCError:
    packed = Detail()
    if detail is not None:
        packed.Pack(detail)
    return RPCError(message, status, GrpcStatus(details=[packed] if detail else []).SerializeToString())


@pytest.mark.parametrize(
    ("error", "forgotten"),
    [
        (failed("workflow not found for ID: order-1", NotFoundFailure()), True),
        (failed("workflow not found for ID: the namespace x is not found", NotFoundFailure()), True),
        (failed("workflow not found", None), True),
        (failed("Namespace nosuch is not found.", NamespaceNotFoundFailure(namespace="nosuch")), False),
        (failed("not found", None, RPCStatusCode.UNAVAILABLE), False),
    ],
)
def test_a_run_is_forgotten_whatever_its_workflow_is_named_and_not_when_its_namespace_is(
    error: RPCError, forgotten: bool
) -> None:
    assert is_forgotten(error) is forgotten


@pytest.mark.parametrize(
    ("error", "unavailable", "busy", "not_ready"),
    [
        (failed("connection refused", None, RPCStatusCode.UNAVAILABLE), True, False, False),
        (failed("workflow update was aborted", None, RPCStatusCode.UNAVAILABLE), False, False, False),
        (
            failed("closing", ResourceExhaustedFailure(cause=CLOSING), RPCStatusCode.RESOURCE_EXHAUSTED),
            False,
            True,
            False,
        ),
        (
            failed("too many", ResourceExhaustedFailure(cause=RATE), RPCStatusCode.RESOURCE_EXHAUSTED),
            False,
            False,
            False,
        ),
        (failed("too many", None, RPCStatusCode.RESOURCE_EXHAUSTED), False, False, False),
        (failed("task failed", WorkflowNotReadyFailure(), RPCStatusCode.FAILED_PRECONDITION), False, False, True),
        (failed("limit", None, RPCStatusCode.FAILED_PRECONDITION), False, False, False),
    ],
)
def test_what_an_error_says_of_the_server_and_of_the_workflow(
    error: RPCError, unavailable: bool, busy: bool, not_ready: bool
) -> None:
    assert (is_unavailable(error), is_busy(error), is_not_ready(error)) == (unavailable, busy, not_ready)
