"""How a run ended, from the last event of its history; no worker is needed for that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowHistoryEventFilterType
from temporalio.service import RPCError, RPCStatusCode

from wakeline.temporal.chains import began_by_reset, carries, describe, start_of
from wakeline.temporal.failures import RPC_TIMEOUT

# A reverse history is read in pages of this many events.
_PAGE_EVENTS: Final = 100

ChainStatus: TypeAlias = Literal["completed", "failed", "canceled", "terminated", "timed_out", "unknown"]
Reason: TypeAlias = Literal["continue_as_new", "retry", "cron", "reset"]


@dataclass(frozen=True)
class Ending:
    """How one Temporal run ended.

    Attributes:
        status: How the chain ended; None if it continues.
        closed_at: When the run ended.
        next_run_id: The run that the chain continues as; empty if it does not.
        follows_by: Why the chain continues. Only `continue_as_new` can carry the stream over.
        carries: Whether the next run received this run's stream; None if that cannot be seen.
        given: How many events of an earlier stream a retry or a cron run received, as this run had.
        failure: The failure that the run ended with.
        result: The result that the run completed with.
        reason: The reason of a termination, or why the end is not known.
        without_reset: How the chain would have ended without the reset.
        closed_as: The close status of this run alone, as its last event shows it; None if it is not known.
    """

    status: ChainStatus | None
    closed_at: datetime
    next_run_id: str = ""
    follows_by: Reason | None = None
    carries: bool | None = None
    given: int = 0
    failure: Failure | None = None
    result: Payloads | None = None
    reason: str = ""
    without_reset: ChainStatus | None = None
    closed_as: WorkflowExecutionStatus | None = None

    @property
    def message(self) -> str:
        """The failure's message, or the reason of a termination; otherwise empty."""
        return self.reason if self.failure is None else self.failure.message


def is_closing(event: HistoryEvent) -> bool:
    """Return whether an event is the last of its run."""
    return event.event_type in _READERS


def read_ending(event: HistoryEvent) -> Ending:
    """Return what the last event of a history says."""
    status, read = _READERS[event.event_type]
    attributes = getattr(event, event.WhichOneof("attributes") or "")
    ending: Ending = read(event.event_time.ToDatetime(tzinfo=UTC), attributes)
    return replace(ending, closed_as=status)


def forgotten() -> Ending:
    """Return the end of a run that Temporal no longer has."""
    return Ending("unknown", datetime.now(UTC), reason="Temporal no longer knows this run")


async def complete(client: Client, workflow_id: str, run_id: str, ending: Ending) -> Ending:
    """Add a reset of the run, and the part of a stream that a retry received, to its ending.

    The close event does not have them.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    if ending.follows_by == "continue_as_new":
        return ending
    if ending.next_run_id:
        start = await start_of(client, workflow_id, ending.next_run_id)
        # A failed run is followed by a retry, or by the next run of its cron schedule; its close event does not say which.
        return replace(ending, given=start.given, follows_by="cron" if start.by_cron else ending.follows_by)
    return await with_reset(client, workflow_id, run_id, ending)


async def with_reset(client: Client, workflow_id: str, run_id: str, ending: Ending) -> Ending:
    """Return the ending with the run that a reset began; unchanged if there was no reset.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    described = await describe(client, workflow_id, run_id)
    next_run_id = described.workflow_extended_info.reset_run_id
    if not next_run_id and ending.status == "terminated":
        # A reset of an earlier run of the chain terminates the open one, whose own description does not say so.
        latest = (await describe(client, workflow_id)).workflow_execution_info
        same_chain = latest.first_run_id == described.workflow_execution_info.first_run_id
        if latest.execution.run_id != run_id and same_chain:
            next_run_id = await began_by_reset(client, workflow_id, latest.execution.run_id)
    if not next_run_id:
        return ending
    return replace(
        ending,
        status=None,
        next_run_id=next_run_id,
        follows_by="reset",
        failure=None,
        result=None,
        without_reset=ending.status,
    )


async def closing_event(client: Client, workflow_id: str, run_id: str) -> Ending:
    """Return how a closed run ended.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    async for event in handle.fetch_history_events(
        event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT, skip_archival=True, rpc_timeout=RPC_TIMEOUT
    ):
        if is_closing(event):
            return read_ending(event)
    raise RPCError("the history of a closed run has no close event", RPCStatusCode.NOT_FOUND, b"")


async def events_back(client: Client, workflow_id: str, run_id: str) -> AsyncIterator[HistoryEvent]:
    """Yield the events of a run's history from its end on; pages are read when they are needed.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        maximum_page_size=_PAGE_EVENTS,
    )
    service = client.workflow_service
    while True:
        page = await service.get_workflow_execution_history_reverse(request, timeout=RPC_TIMEOUT)
        for event in page.history.events:
            yield event
        if not page.next_page_token:
            return
        request.next_page_token = page.next_page_token


def _completed(at: datetime, attributes: Any) -> Ending:
    if attributes.new_execution_run_id:
        return Ending(None, at, attributes.new_execution_run_id, "cron", carries=False)
    return Ending("completed", at, result=attributes.result)


def _failed(at: datetime, attributes: Any) -> Ending:
    if attributes.new_execution_run_id:
        return Ending(None, at, attributes.new_execution_run_id, "retry", carries=False, failure=attributes.failure)
    return Ending("failed", at, failure=attributes.failure)


def _timed_out(at: datetime, attributes: Any) -> Ending:
    if attributes.new_execution_run_id:
        return Ending(None, at, attributes.new_execution_run_id, "retry", carries=False)
    return Ending("timed_out", at)


def _canceled(at: datetime, _: Any) -> Ending:
    return Ending("canceled", at)


def _terminated(at: datetime, attributes: Any) -> Ending:
    return Ending("terminated", at, reason=attributes.reason)


def _continued(at: datetime, attributes: Any) -> Ending:
    next_run_id = attributes.new_execution_run_id
    if attributes.workflow_type.name:
        return Ending(None, at, next_run_id, "continue_as_new", carries=carries(attributes.input.payloads))
    # Not written by the workflow. To clients that do not ask for the new form, the server shows a failed, timed out or
    # completed run that continues (retry, cron) as this event, with little more than the next run's id.
    if attributes.HasField("failure"):
        return Ending(None, at, next_run_id, "retry", carries=False, failure=attributes.failure)
    return Ending(None, at, next_run_id, "cron", carries=False)


_READERS: Final[dict[int, tuple[WorkflowExecutionStatus, Any]]] = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: (WorkflowExecutionStatus.COMPLETED, _completed),
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: (WorkflowExecutionStatus.FAILED, _failed),
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: (WorkflowExecutionStatus.TIMED_OUT, _timed_out),
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED: (WorkflowExecutionStatus.CANCELED, _canceled),
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: (WorkflowExecutionStatus.TERMINATED, _terminated),
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW: (WorkflowExecutionStatus.CONTINUED_AS_NEW, _continued),
}
