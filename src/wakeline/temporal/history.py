"""A run's history, followed from its first event, and the state that it describes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from temporalio.api.enums.v1 import EventType, TimeoutType, WorkflowExecutionStatus, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.client import WorkflowHandle, WorkflowHistoryEventFilterType

# The server answers a waiting call after about 20 s without an event.
_LONG_POLL: Final = timedelta(seconds=40)
# A history is followed from its beginning. Temporal suggests continue-as-new at 4 MB; longer ones are not followed.
_MOST_BYTES: Final = 5_000_000

_ENDS_OF_ACTIVITIES: Final = frozenset(
    {
        EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
        EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED,
    }
)
# The workflow has no fault: it was reset, or an event arrived while its task completed.
_NO_FAILURES: Final = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
)


class ActivityAttempt(NamedTuple):
    """One attempt of one activity."""

    activity: str
    activity_type: str
    attempt: int


class History:
    """The state of a run as the events so far describe it.

    Attributes:
        scheduled: The event of the last workflow task. A workflow's stream changes in workflow tasks alone, so a reader
            that has asked after this one has everything.
        started: The event of the last workflow task that a worker has accepted.
        updates: How many updates the run has accepted.
        waiting: How many of them are not completed.
        timers: When each running timer will fire, by the event that started it.
        task_failure: Why workflow tasks have failed since one was completed: the first failure, as Temporal records no
            other.
        stalled: Activities that timed out for want of a heartbeat, each with its scheduling event, until a caller
            removes them.
    """

    def __init__(self) -> None:
        self.scheduled = 0
        self.started = 0
        self.updates = 0
        self.waiting = 0
        self.timers: dict[int, datetime] = {}
        self.stalled: list[tuple[int, ActivityAttempt]] = []
        self.task_failure: Failure | None = None
        self._activities: dict[int, ActivityAttempt] = {}

    def note(self, event: HistoryEvent, *, old: bool) -> bool:
        """Read the next event; return whether a workflow task was scheduled.

        Args:
            event: The event.
            old: Whether it was there before the history was followed.
        """
        kind = event.event_type
        if kind == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
            self.scheduled = event.event_id
            return True
        attributes: Any = getattr(event, event.WhichOneof("attributes") or "", None)
        if kind == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
            self.started = event.event_id
        elif kind == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            self.task_failure = None
        elif kind == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED and attributes.cause not in _NO_FAILURES:
            self.task_failure = attributes.failure
        elif kind == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
            self.updates += 1
            self.waiting += 1
        elif kind == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
            self.waiting -= 1
        elif kind == EventType.EVENT_TYPE_TIMER_STARTED:
            self.timers[event.event_id] = (
                event.event_time.ToDatetime(tzinfo=UTC) + attributes.start_to_fire_timeout.ToTimedelta()
            )
        elif kind in (EventType.EVENT_TYPE_TIMER_FIRED, EventType.EVENT_TYPE_TIMER_CANCELED):
            self.timers.pop(attributes.started_event_id, None)
        elif kind == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            self._activities[event.event_id] = ActivityAttempt(
                attributes.activity_id, attributes.activity_type.name, attempt=1
            )
        elif kind == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            # The server records this when the activity has ended, with its last attempt.
            begun = self._activities.get(attributes.scheduled_event_id)
            if begun is not None:
                self._activities[attributes.scheduled_event_id] = begun._replace(attempt=attributes.attempt)
        elif kind in _ENDS_OF_ACTIVITIES:
            ended = self._activities.pop(attributes.scheduled_event_id, None)
            if ended is not None and not old and heartbeat_missed(getattr(attributes, "failure", None)):
                self.stalled.append((attributes.scheduled_event_id, ended))
        return False


def is_followed(info: WorkflowExecutionInfo) -> bool:
    """Return whether a run's whole history is followed: it is open and not too long."""
    is_open = info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
    return is_open and info.history_size_bytes <= _MOST_BYTES


async def pages(handle: WorkflowHandle[Any, Any], *, whole: bool) -> AsyncIterator[Sequence[HistoryEvent]]:
    """Yield the pages of a run's history as they come, up to its last event.

    The server holds one call at a time.

    Args:
        handle: The run.
        whole: Whether all events are wanted, or only the last.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    kinds = WorkflowHistoryEventFilterType
    events = handle.fetch_history_events(
        wait_new_event=True,
        event_filter_type=kinds.ALL_EVENT if whole else kinds.CLOSE_EVENT,
        skip_archival=True,
        rpc_timeout=_LONG_POLL,
    )
    while True:
        await events.fetch_next_page()
        yield events.current_page or ()
        if events.next_page_token is None:
            return


def heartbeat_missed(failure: Any) -> bool:
    """Return whether an activity failed because it sent no heartbeat in time."""
    while failure is not None:
        if failure.timeout_failure_info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT:
            return True
        failure = failure.cause if failure.HasField("cause") else None
    return False
