"""The workflows that a namespace's visibility lists; its times are Temporal's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.reaching.connection import Connection
from wakeline.temporal.chains import describe
from wakeline.temporal.failures import RPC_TIMEOUT

_PAGE: Final = 1000
# The first listing begins so long before the newest time that visibility shows.
_BACK: Final = timedelta(minutes=10)
# Before anything has happened in a namespace, everything that ever happens is new.
_BEGINNING: Final = datetime(1970, 1, 2, tzinfo=UTC)
# Listings, at most, in which a run that Temporal is known to have is searched for.
_TRAILS_TIMES: Final = 10
# Seconds between two of these listings.
_TRAILS_SECONDS: Final = 0.2
_UNQUOTABLE: Final = re.compile(r"""[\x00-\x1f\x7f"\\]|^'|'\Z""")


class Visibility:
    """Lists the workflows of one namespace.

    Args:
        connection: Temporal.

    Attributes:
        newest: The latest start or end that was listed; None before the first listing.
    """

    def __init__(self, connection: Connection) -> None:
        self.newest: datetime | None = None
        self._connection = connection

    async def find_newest(self) -> None:
        """Learn the newest time that visibility shows; it lists the newest workflow first.

        Raises:
            RPCError: Temporal cannot be asked now.
        """
        for query in ("ExecutionStatus = 'Running'", "ExecutionStatus != 'Running'"):
            async for _ in self.listed(query, most=1):
                pass
        self.newest = self.newest or _BEGINNING

    def some_time_ago(self) -> datetime:
        """Return the time from which the first listing lists workflows."""
        return (self.newest or _BEGINNING) - _BACK

    async def listed(self, query: str, *, most: int | None = None) -> AsyncIterator[WorkflowExecutionInfo]:
        """Yield the workflows of a query, at most so many; pages are read when they are needed.

        Raises:
            RPCError: Temporal cannot be asked now, or the query is invalid.
        """
        token = b""
        while True:
            await self._connection.until_calm()
            request = ListWorkflowExecutionsRequest(
                namespace=self._connection.namespace, page_size=most or _PAGE, next_page_token=token, query=query
            )
            answer = await self._connection.client.workflow_service.list_workflow_executions(
                request, timeout=RPC_TIMEOUT
            )
            for info in answer.executions:
                shown = max(info.start_time.ToDatetime(tzinfo=UTC), info.close_time.ToDatetime(tzinfo=UTC))
                self.newest = max(self.newest or shown, shown)
                yield info
            token = answer.next_page_token
            if not token or most is not None:
                return

    async def latest(self, workflow_id: str) -> list[WorkflowExecutionInfo]:
        """Return the latest run of a workflow whose id no query can have; nothing if there is none.

        Raises:
            RPCError: Temporal cannot be asked now.
        """
        await self._connection.until_calm()
        try:
            described = await describe(self._connection.client, workflow_id)
        except RPCError as error:
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                return []
            raise
        return [described.workflow_execution_info]

    async def runs_before(self, workflow_id: str, run_id: str) -> list[str]:
        """Return the workflow's recent runs before one of its runs, in the order of their starts.

        Visibility lags: if it does not list the run itself, it may not list the others yet, and is polled for a while.
        """
        if not can_be_quoted(workflow_id):
            return []
        query = f"WorkflowId = {quoted(workflow_id)} AND StartTime >= '{written(self.some_time_ago())}'"
        for _ in range(_TRAILS_TIMES):
            try:
                found = [info async for info in self.listed(query)]
            except RPCError:
                return []
            found.sort(key=lambda info: info.start_time.ToNanoseconds())
            run_ids = [info.execution.run_id for info in found]
            if run_id in run_ids:
                return run_ids[: run_ids.index(run_id)]
            await asyncio.sleep(_TRAILS_SECONDS)
        return []


def can_be_quoted(text: str) -> bool:
    """Return whether visibility can be asked for exactly this.

    Temporal's servers undo what a quoted text is escaped with for a quote alone, and not at its ends.
    """
    return bool(text) and _UNQUOTABLE.search(text) is None


def quoted(text: str) -> str:
    """Return a text that can be quoted as queries take it."""
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def written(moment: datetime) -> str:
    """Return a time as queries take it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
