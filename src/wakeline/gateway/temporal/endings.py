"""How a run ended, from the last event of its history: no worker is needed to know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle, WorkflowHistoryEventFilterType
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.runs import Status
from wakeline.gateway.temporal import told

_LONG_POLL: Final = timedelta(seconds=40)  # the server answers after about 20 s when nothing happened


class Ending(msgspec.Struct, frozen=True):
    """How one Temporal run ended.

    Attributes:
        status: How the chain ended; None if it goes on.
        closed_at: When.
        next_run_id: The run the chain goes on as; empty if it does not.
        reason: Why the chain goes on.
        details: `failure` or `reason` for `$run.closed`.
    """

    status: Status | None
    closed_at: datetime
    next_run_id: str = ""
    reason: str = ""
    details: dict[str, Any] = {}


async def wait_for_end(client: Client, workflow_id: str, run_id: str, converter: DataConverter | None) -> Ending:
    """Return when the run has ended; one call is open at a time, and the server holds it.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    while True:
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
        async for event in handle.fetch_history_events(
            wait_new_event=True,
            event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT,
            skip_archival=True,
            rpc_timeout=_LONG_POLL,
        ):
            return await read_ending(event, converter)


def is_forgotten(error: RPCError) -> bool:
    """Whether Temporal says that it has no such run: deleted by retention, or another server's."""
    return error.status == RPCStatusCode.NOT_FOUND and "namespace" not in error.message.lower()


def forgotten() -> Ending:
    """The end of a run that Temporal no longer knows."""
    return Ending("unknown", datetime.now(UTC), details={"reason": "Temporal no longer knows this run"})


async def read_ending(event: HistoryEvent, converter: DataConverter | None) -> Ending:
    """What a history's last event says, decoded where it can be."""
    at = event.event_time.ToDatetime(tzinfo=UTC)
    match event.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            completed = event.workflow_execution_completed_event_attributes
            return _or_next("completed", at, completed.new_execution_run_id, "cron")
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            failed = event.workflow_execution_failed_event_attributes
            details = {"failure": await told.failure(converter, failed.failure)}
            return _or_next("failed", at, failed.new_execution_run_id, "retry", details)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
            timed_out = event.workflow_execution_timed_out_event_attributes
            failure = {"failure": {"message": "the workflow timed out"}}
            return _or_next("timed_out", at, timed_out.new_execution_run_id, "retry", failure)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
            return Ending("canceled", at)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
            terminated = event.workflow_execution_terminated_event_attributes
            return Ending("terminated", at, details={"reason": terminated.reason})
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
            continued = event.workflow_execution_continued_as_new_event_attributes
            reason = "continue_as_new"
            if not continued.workflow_type.name:
                # Not written by the workflow: to clients that do not say otherwise, the server shows a failed, timed out
                # or completed run that goes on (retry, cron) in this form, with little more than the next run's id.
                reason = "retry" if continued.HasField("failure") else "cron"
            return Ending(None, at, continued.new_execution_run_id, reason)
        case other:
            raise AssertionError(f"expected a close event, got {EventType.Name(other)}")


def _or_next(
    status: Status, at: datetime, next_run_id: str, reason: str, details: dict[str, Any] | None = None
) -> Ending:
    if next_run_id:
        return Ending(None, at, next_run_id, reason)
    return Ending(status, at, details=details or {})
