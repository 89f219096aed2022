"""Counts every call of the gateway to Temporal, and reports its failures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowExecutionStatus as KnownStatus
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

_KNOWN_STATUSES: Final = frozenset(map(int, KnownStatus))
_REFUSED_TEXT: Final = re.compile(r'code: (?:"[^"]*"|PermissionDenied|Unauthenticated).*?message: "([^"]*)"', re.S)


class CountedService(ServiceClient):
    """A service client that reports each call.

    Args:
        service: The one that makes the calls.
        called: Called after each with its name, such as `QueryWorkflow`, its outcome, such as `OK` or `UNAVAILABLE`, and the
            error that Temporal answered. Retries of the SDK within one call count as one call.
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
