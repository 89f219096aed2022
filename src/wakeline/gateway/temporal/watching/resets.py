"""What a reset has undone: the activities that the old run scheduled after the point from which the new one goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from wakeline.events import publisher_of_activity
from wakeline.gateway.accept import Accept
from wakeline.gateway.log import Publication
from wakeline.gateway.runs import Run
from wakeline.gateway.temporal.watching.endings import RPC_TIMEOUT, is_forgotten

_MOST_EVENTS: Final = 50_000  # as many as Temporal lets a history have, about


async def supersede_undone(client: Client, accept: Accept, session: str, run: Run, next_run_id: str) -> None:
    """Say of what undone activities have published past the workflow that it no longer counts, and refuse what they still send.

    Doing it again says nothing again.

    Raises:
        RPCError: Temporal cannot be asked now.
        WakelineError: What `Accept.open_attempt` raises.
    """
    for run_id, activity in await _undone(client, run, next_run_id):
        publisher = publisher_of_activity(run_id, activity)
        position = await accept.position(session, publisher)
        if position is not None:
            after = Publication(publisher, position.attempt + 1, supersedes=True, run=run.run, activity=activity)
            await accept.open_attempt(session, after)


async def _undone(client: Client, run: Run, next_run_id: str) -> list[tuple[str, str]]:
    """Run id and activity id of each."""
    base, point = "", 0
    async for event in _history(client, run.workflow_id, next_run_id):
        failed = event.workflow_task_failed_event_attributes
        if failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
            base, point = failed.base_run_id, event.event_id
    undone: list[tuple[str, str]] = []
    for run_id, after in {base: point, run.run_id: point if run.run_id == base else 0}.items():
        if not run_id:
            continue
        undone += [
            (run_id, event.activity_task_scheduled_event_attributes.activity_id)
            async for event in _history(client, run.workflow_id, run_id)
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED and event.event_id > after
        ]
    return undone


async def _history(client: Client, workflow_id: str, run_id: str) -> AsyncIterator[HistoryEvent]:
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    count = 0
    try:
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=RPC_TIMEOUT):
            count += 1
            if count > _MOST_EVENTS:
                return
            yield event
    except RPCError as error:
        if not is_forgotten(error):
            raise
