"""A run's children that name their session, as the run's history lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeAlias

import structlog
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle

from wakeline.gateway.reaching import SESSION_ATTRIBUTE, SESSION_MEMO

Enter: TypeAlias = Callable[[str, str], Awaitable[None]]
"""Has a child's run followed where it speaks; given its Workflow Id and run id. Errors are logged."""

_PAGE_TIMEOUT: Final = timedelta(seconds=40)
_PATIENCE: Final = 30.0
_LOOK: Final = 1.0
_log = structlog.get_logger(__name__)


class Children:
    """The children of one Temporal run.

    Args:
        enter: Has each followed.
    """

    def __init__(self, enter: Enter) -> None:
        self._enter = enter
        self._initiated: set[int] = set()
        self._known: set[str] = set()
        self._entering: set[asyncio.Future[None]] = set()

    def note(self, event: HistoryEvent) -> None:
        """Read an event of the history, which may come again; a child is initiated before it starts."""
        kind = event.event_type
        if kind == EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
            initiated = event.start_child_workflow_execution_initiated_event_attributes
            if SESSION_MEMO in initiated.memo.fields or SESSION_ATTRIBUTE in initiated.search_attributes.indexed_fields:
                self._initiated.add(event.event_id)
        elif kind == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
            started = event.child_workflow_execution_started_event_attributes
            child = started.workflow_execution
            if started.initiated_event_id in self._initiated and child.run_id not in self._known:
                self._known.add(child.run_id)
                entering = asyncio.ensure_future(self._enter(child.workflow_id, child.run_id))
                self._entering.add(entering)
                entering.add_done_callback(self._over)

    def _over(self, entering: asyncio.Future[None]) -> None:
        if not entering.cancelled():  # as it is where everything stops: then it is not done
            self._entering.discard(entering)

    async def read(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Note the whole history of a run that has ended.

        Raises:
            RPCError: Temporal cannot be asked now, or does not know the run.
        """
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=_PAGE_TIMEOUT):
            self.note(event)

    async def entered(self, reachable: Callable[[], bool]) -> None:
        """Return when all noted children are followed: only then may their session be settled.

        An outage is waited out. A child that Temporal does not answer for is not waited for forever: the parent has ended.

        Args:
            reachable: Whether Temporal can be asked now.
        """
        left = _PATIENCE
        while self._entering and left > 0:
            done, _ = await asyncio.wait(self._entering, timeout=_LOOK)
            for each in done:
                each.result()
            if not done and reachable():
                left -= _LOOK
        if self._entering:
            _log.warning(
                "children of a run cannot be looked up; its end is reported without them", count=len(self._entering)
            )
