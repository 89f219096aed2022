"""How a run ended, from the last event of its history: no worker is needed to know."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import ContinueAsNewInitiator, EventType, WorkflowExecutionStatus
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle, WorkflowHistoryEventFilterType
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.following.reaching.calls import is_no_namespace
from wakeline.gateway.sessions import Run, Status

RPC_TIMEOUT: Final = timedelta(seconds=10)
# A run of which Temporal says once that it has none may be there a moment later: a server that starts says many things.
UNKNOWN_TIMES: Final = 3
# So many runs of a chain may have come and gone between a reset and the look that finds it.
_MOST_SINCE_RESET: Final = 100
_CARRIED: Final = b'"base_offset"'
"""What every carried stream has in its JSON, whichever language's library wrote it."""


class Ending(msgspec.Struct, frozen=True):
    """How one Temporal run ended.

    Attributes:
        status: How the chain ended; None if it goes on.
        closed_at: When.
        next_run_id: The run the chain goes on as; empty if it does not.
        follows_by: Why the chain goes on: `continue_as_new`, `retry`, `cron` or `reset`.
        carries: Whether the next run was given this one's stream; None where that cannot be seen.
        given: How much of an earlier stream the next run was given because this one was: by retry and cron.
        failure: What it failed of.
        result: What it completed with.
        reason: What was said at its termination, or why its end is not known.
        without_reset: How the chain would have ended if the run had not been reset.
    """

    status: Status | None
    closed_at: datetime
    next_run_id: str = ""
    follows_by: str = ""
    carries: bool | None = None
    given: int = 0
    failure: Failure | None = None
    result: Payloads | None = None
    reason: str = ""
    without_reset: Status | None = None


async def complete(client: Client, run: Run, ending: Ending) -> Ending:
    """Add what a close event does not say: that the run was reset and so goes on from an earlier point, and what is given on.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    if ending.next_run_id:
        if ending.follows_by == "continue_as_new":
            return ending
        given, by_cron = await _given(client, run.workflow_id, ending.next_run_id)
        # A run that failed is followed by a retry, or by the next that its cron schedule has: its own end does not say which.
        return msgspec.structs.replace(ending, given=given, follows_by="cron" if by_cron else ending.follows_by)
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    described = (await handle.describe(rpc_timeout=RPC_TIMEOUT)).raw_description
    next_run_id = described.workflow_extended_info.reset_run_id
    if not next_run_id and ending.status == "terminated":
        # An earlier run of the chain was reset, and this one was in the way.
        latest = await client.get_workflow_handle(run.workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
        chain = latest.raw_description.workflow_execution_info.first_run_id
        if latest.run_id != run.run_id and chain == described.workflow_execution_info.first_run_id:
            next_run_id = await _begun_by_reset(client, run.workflow_id, latest.run_id)
    if not next_run_id:
        return ending
    return Ending(None, ending.closed_at, next_run_id, "reset", reason=ending.reason, without_reset=ending.status)


async def closing_event(client: Client, workflow_id: str, run_id: str) -> Ending:
    """How a run that has ended did so.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    async for event in handle.fetch_history_events(
        event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT, skip_archival=True, rpc_timeout=RPC_TIMEOUT
    ):
        if is_closing(event):
            return read_ending(event)
    raise RPCError("the history of a closed run has no close event", RPCStatusCode.NOT_FOUND, b"")


def is_forgotten(error: RPCError) -> bool:
    """Whether Temporal says that it has no such run: deleted by retention, or another server's."""
    return error.status == RPCStatusCode.NOT_FOUND and not is_no_namespace(error)


def forgotten() -> Ending:
    """The end of a run that Temporal no longer knows."""
    return Ending("unknown", datetime.now(UTC), reason="Temporal no longer knows this run")


def is_closing(event: HistoryEvent) -> bool:
    """Whether an event is the last of its run."""
    return event.event_type in _READERS


def read_ending(event: HistoryEvent) -> Ending:
    """What a history's last event says."""
    at = event.event_time.ToDatetime(tzinfo=UTC)
    attributes = getattr(event, event.WhichOneof("attributes") or "")
    ending: Ending = _READERS[event.event_type](at, attributes)
    return ending


def _completed(at: datetime, attributes: Any) -> Ending:
    if attributes.new_execution_run_id:
        return Ending(None, at, attributes.new_execution_run_id, "cron", carries=False)
    return Ending("completed", at, result=attributes.result)


def _failed(at: datetime, attributes: Any) -> Ending:
    if attributes.new_execution_run_id:
        return Ending(None, at, attributes.new_execution_run_id, "retry", carries=False)
    return Ending("failed", at, failure=attributes.failure)


def _timed_out(at: datetime, attributes: Any) -> Ending:
    if attributes.new_execution_run_id:
        return Ending(None, at, attributes.new_execution_run_id, "retry", carries=False)
    return Ending("timed_out", at, failure=Failure(message="the workflow timed out"))


def _canceled(at: datetime, _: Any) -> Ending:
    return Ending("canceled", at)


def _terminated(at: datetime, attributes: Any) -> Ending:
    return Ending("terminated", at, reason=attributes.reason)


def _continued(at: datetime, attributes: Any) -> Ending:
    next_run_id = attributes.new_execution_run_id
    if not attributes.workflow_type.name:
        # Not written by the workflow: to clients that do not say otherwise, the server shows a failed, timed out or completed
        # run that goes on (retry, cron) in this form, with little more than the next run's id.
        return Ending(None, at, next_run_id, "retry" if attributes.HasField("failure") else "cron", carries=False)
    return Ending(None, at, next_run_id, "continue_as_new", carries=carries(attributes.input.payloads))


async def _given(client: Client, workflow_id: str, run_id: str) -> tuple[int, bool]:
    """How many events of an earlier stream a run was given, 0 where that cannot be seen, and whether cron began it."""
    started = (await first_event(client, workflow_id, run_id)).workflow_execution_started_event_attributes
    by_cron = started.initiator == ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
    for payload in started.input.payloads:
        if _CARRIED in payload.data:
            with suppress(msgspec.DecodeError):
                return _length(msgspec.json.decode(payload.data)), by_cron
    return 0, by_cron


async def _begun_by_reset(client: Client, workflow_id: str, latest: str) -> str:
    """The run that a reset began, where the chain may have gone on from it since: `latest`, or one before it."""
    run_id = latest
    for _ in range(_MOST_SINCE_RESET):
        started = (await first_event(client, workflow_id, run_id)).workflow_execution_started_event_attributes
        if started.original_execution_run_id != run_id:
            return run_id  # its first events are another run's
        if not started.continued_execution_run_id:
            break
        run_id = started.continued_execution_run_id
    return latest


async def first_event(client: Client, workflow_id: str, run_id: str) -> HistoryEvent:
    """The event that a run began with.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    events = handle.fetch_history_events(page_size=1, skip_archival=True, rpc_timeout=RPC_TIMEOUT)
    await events.fetch_next_page()
    for event in events.current_page or ():
        return event
    return HistoryEvent()


async def is_over(client: Client, run: Run) -> tuple[bool, str]:
    """Whether a run's chain has ended by now, as whatever it went on; and the run that its workflow has come to.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the workflow.
    """
    latest = await client.get_workflow_handle(run.workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
    info = latest.raw_description.workflow_execution_info
    runs = info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
    return not runs or info.first_run_id != run.first_run_id, info.execution.run_id


def _length(value: Any) -> int:
    """Of the stream that is somewhere in a value."""
    if isinstance(value, dict):
        log, base_offset = value.get("log"), value.get("base_offset")
        if isinstance(log, list) and isinstance(base_offset, int):
            return base_offset + len(log)
        value = list(value.values())
    return max(map(_length, value), default=0) if isinstance(value, list) else 0


def carries(given: Iterable[Payload]) -> bool | None:
    """Whether a stream is in what the next run was given; None if part of that cannot be read."""
    readable = True
    for payload in given:
        if _CARRIED in payload.data:
            return True
        readable &= payload.metadata.get("encoding", b"") in (b"json/plain", b"binary/null", b"binary/plain")
        readable &= not payload.external_payloads
    return False if readable else None


_READERS: Final[dict[int, Any]] = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: _completed,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: _failed,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: _timed_out,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED: _canceled,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: _terminated,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW: _continued,
}
