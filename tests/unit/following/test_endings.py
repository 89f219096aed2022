"""What Temporal's answers say of a run's end."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.message import Message
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure, NotFoundFailure
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.following.watching.endings import is_forgotten


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
