"""How many signals and updates Temporal still accepts for a run.

Temporal refuses a run's signals and updates after so many of them, whoever sent them. Only the run's history counts them, and a
read of it may be long. So it is read seldom: after a count, half of the inputs that are left may be sent before the next one.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from wakeline.errors import LimitReachedError
from wakeline.gateway.reaching import Connection

_EVENTS: Final = {
    "signal": EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
    "update": EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
}
_TIMEOUT: Final = timedelta(seconds=5)
_MOST_RUNS: Final = 10_000
_RETRY_SECONDS: Final = 10


class _Budget(msgspec.Struct):
    """The rest of one run's budget for one kind of input.

    Attributes:
        left: How many Temporal accepts, as far as is known.
        unchecked: How many may be sent before the next count.
    """

    left: int
    unchecked: int


class Budgets:
    """The budgets of the runs that inputs are sent to.

    Args:
        limits: The most inputs of one Temporal run, by kind.
    """

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits = limits
        self._budgets: dict[tuple[str, str], _Budget] = {}  # by run and kind, used last at the end
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def take(self, connection: Connection, workflow_id: str, run_id: str, kind: str) -> None:
        """Count an input of a run.

        While Temporal cannot be asked nothing is refused: the input waits, and Temporal itself refuses it if it must.

        Raises:
            LimitReachedError: The run has had too many.
        """
        if kind not in self._limits:
            return
        key = (run_id, kind)
        # Of two inputs at once the second one waits for the count of the first.
        async with self._locks.setdefault(key, asyncio.Lock()):
            budget = self._budgets.pop(key, None)
            if budget is None or (budget.left > 0 and budget.unchecked == 0):
                budget = await self._counted(connection, workflow_id, run_id, kind)
                if budget is None:
                    return
            self._budgets[key] = budget
            if len(self._budgets) > _MOST_RUNS:
                del self._budgets[next(iter(self._budgets))]
            if budget.left <= 0:
                raise LimitReachedError(
                    f"expected at most {self._limits[kind]} {kind}s of one Temporal run, got one more",
                    retry_after=_RETRY_SECONDS,
                )
            budget.left -= 1
            budget.unchecked -= 1

    async def _counted(self, connection: Connection, workflow_id: str, run_id: str, kind: str) -> _Budget | None:
        """Return what is left of a run's budget; None if Temporal cannot be asked now."""
        if not connection.up() or not connection.calm():
            return None
        try:
            left = await self._left(connection, workflow_id, run_id, kind)
        except RPCError:
            return None
        return _Budget(left, (left + 1) // 2)

    async def _left(self, connection: Connection, workflow_id: str, run_id: str, kind: str) -> int:
        """Return how many inputs the run may still have; a history below the limit need not be read."""
        limit = self._limits[kind]
        handle: WorkflowHandle[Any, Any] = connection.client.get_workflow_handle(workflow_id, run_id=run_id)
        length = (await handle.describe(rpc_timeout=_TIMEOUT)).history_length
        if length < limit:
            return limit - length
        count = 0
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=_TIMEOUT):
            count += event.event_type == _EVENTS[kind]
        return limit - count
