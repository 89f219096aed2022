"""What a run's history, followed from its first event, says of what is going on in it now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from temporalio.api.enums.v1 import EventType, TimeoutType, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

_ENDS_OF_ACTIVITIES: Final = frozenset(
    {
        EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
        EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED,
    }
)
# Nothing is wrong with the workflow: it was reset, or something came in while it ended.
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
    """What was in the history so far.

    Attributes:
        scheduled: The event of the last workflow task; the workflow's stream changes in workflow tasks alone.
        started: The event of the workflow task that a worker has taken last.
        updates: How many updates the run has taken.
        timers: When each timer that is running will fire, by the event that started it.
        task_failure: Why workflow tasks have failed since one was completed: the first failure, as Temporal records no other.
        stalled: Activities that were given up for want of a heartbeat, with what scheduled each, until they are taken.
    """

    def __init__(self) -> None:
        self.scheduled = 0
        self.started = 0
        self.updates = 0
        self.timers: dict[int, datetime] = {}
        self.stalled: list[tuple[int, ActivityAttempt]] = []
        self.task_failure: Failure | None = None
        self._activities: dict[int, ActivityAttempt] = {}

    def note(self, event: HistoryEvent, *, old: bool) -> bool:
        """Take the next event; True if the workflow is about to do something.

        Args:
            event: The event.
            old: It was there before anybody watched.
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
            # It is written down when the activity has ended, with its last attempt.
            begun = self._activities.get(attributes.scheduled_event_id)
            if begun is not None:
                self._activities[attributes.scheduled_event_id] = begun._replace(attempt=attributes.attempt)
        elif kind in _ENDS_OF_ACTIVITIES:
            ended = self._activities.pop(attributes.scheduled_event_id, None)
            if ended is not None and not old and heartbeat_missed(getattr(attributes, "failure", None)):
                self.stalled.append((attributes.scheduled_event_id, ended))
        return False


def heartbeat_missed(failure: Any) -> bool:
    """Whether an activity failed because nothing was heard of it within its heartbeat time-out."""
    while failure is not None:
        if failure.timeout_failure_info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT:
            return True
        failure = failure.cause if failure.HasField("cause") else None
    return False
