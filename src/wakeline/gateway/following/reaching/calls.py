"""Every call of the gateway to Temporal goes through here: it is counted, and a failure says what it says of the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from google.protobuf.message import DecodeError
from temporalio.api.enums.v1 import ResourceExhaustedCause, WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import (
    NamespaceNotFoundFailure,
    ResourceExhaustedFailure,
    WorkflowNotReadyFailure,
)
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowExecutionStatus as KnownStatus
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

# One workflow that has enough to do says nothing of the server.
_OF_ONE_WORKFLOW: Final = (
    ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW,
    ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_CONCURRENT_LIMIT,
)
# The message of an update's call whose run was closed or unloaded: its status, UNAVAILABLE, says nothing of the server.
_UPDATE_ABORTED: Final = "workflow update was aborted"
_KNOWN_STATUSES: Final = frozenset(map(int, KnownStatus))
_REFUSED_TEXT: Final = re.compile(r'code: (?:"[^"]*"|PermissionDenied|Unauthenticated).*?message: "([^"]*)"', re.S)


class CountedService(ServiceClient):
    """A service client that tells of each call.

    Args:
        service: The one that makes the calls.
        called: Called after each with its name, such as `QueryWorkflow`, its outcome, such as `OK` or `UNAVAILABLE`, and the
            error that Temporal answered. What the SDK tries again by itself within one call is one call.
    """

    def __init__(self, service: ServiceClient, called: Callable[[str, str, RPCError | None], None]) -> None:
        super().__init__(service.config)
        self._service = service
        self._called = called

    @property
    def worker_service_client(self) -> Any:
        """The one that makes the calls."""
        return self._service.worker_service_client

    def update_rpc_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        """Send other headers from now on."""
        self._service.update_rpc_metadata(metadata)

    def update_api_key(self, api_key: str | None) -> None:
        """Send another key from now on."""
        self._service.update_api_key(api_key)

    async def _rpc_call(
        self,
        rpc: str,
        req: Any,
        resp_type: type[Any],
        *,
        service: str,
        retry: bool,
        metadata: Mapping[str, str | bytes],
        timeout: timedelta | None,
    ) -> Any:
        name = "".join(word.title() for word in rpc.split("_"))
        try:
            answer = await self._service._rpc_call(
                rpc, req, resp_type, service=service, retry=retry, metadata=metadata, timeout=timeout
            )
        except RPCError as error:
            self._called(name, error.status.name, error)
            raise
        except (RuntimeError, ValueError) as error:  # the first connection of a lazy client failed, with a text alone
            refused = _REFUSED_TEXT.search(str(error))
            status = RPCStatusCode.UNAUTHENTICATED if refused else RPCStatusCode.UNAVAILABLE
            failed = RPCError(refused[1] if refused else str(error), status, b"")
            self._called(name, status.name, failed)
            raise failed from error
        self._called(name, RPCStatusCode.OK.name, None)
        if isinstance(answer, DescribeWorkflowExecutionResponse):
            _make_known(answer.workflow_execution_info)
        return answer


def _make_known(info: WorkflowExecutionInfo) -> None:
    """Replace a status that the SDK does not know and would fail at, such as paused, by running."""
    if info.status and info.status not in _KNOWN_STATUSES:
        info.status = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING


def is_no_namespace(error: RPCError) -> bool:
    """Whether the namespace is what Temporal does not have."""
    return error.status == RPCStatusCode.NOT_FOUND and _detail(error, NamespaceNotFoundFailure) is not None


def is_throttled(error: RPCError) -> bool:
    """Whether Temporal has too many calls; not so where one workflow alone has too much to do."""
    if error.status != RPCStatusCode.RESOURCE_EXHAUSTED:
        return False
    failure = _detail(error, ResourceExhaustedFailure)
    return failure is None or failure.cause not in _OF_ONE_WORKFLOW


def is_unavailable(error: RPCError) -> bool:
    """Return whether Temporal cannot be reached, or cannot answer at all."""
    return error.status == RPCStatusCode.UNAVAILABLE and error.message != _UPDATE_ABORTED


def is_busy(error: RPCError) -> bool:
    """Return whether one workflow cannot accept a call now: it has too much to do, or it was closed while it had the call."""
    failure = _detail(error, ResourceExhaustedFailure) if error.status == RPCStatusCode.RESOURCE_EXHAUSTED else None
    return failure is not None and failure.cause == ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW


def is_not_ready(error: RPCError) -> bool:
    """Return whether a workflow cannot be asked yet: no worker has taken a task of it, or its task has failed."""
    return error.status == RPCStatusCode.FAILED_PRECONDITION and _detail(error, WorkflowNotReadyFailure) is not None


def _detail(error: RPCError, kind: type[Any]) -> Any:
    try:
        for detail in error.grpc_status.details:
            if detail.Is(kind.DESCRIPTOR):
                found = kind()
                detail.Unpack(found)
                return found
    except DecodeError:
        pass
    return None
