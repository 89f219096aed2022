"""The reason for which a run waits: for a worker, a retry of its task, input or a timer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from temporalio.api.enums.v1 import PendingWorkflowTaskState, TaskQueueType
from temporalio.api.failure.v1 import Failure
from temporalio.api.sdk.v1 import WorkflowInteractionDefinition, WorkflowMetadata
from temporalio.api.workflow.v1 import PendingWorkflowTaskInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from wakeline.events import timestamp
from wakeline.gateway.following.watching.activities import SCHEDULED
from wakeline.temporal.deployments import Queue
from wakeline.temporal.history import History
from wakeline.text import cut

METADATA_QUERY: Final = "__temporal_workflow_metadata"
# A task that no worker has accepted for so long waits for a worker; a busy worker accepts it sooner.
_UNTAKEN: Final = 8.0
# The same for a task that Temporal starts a worker for. If its first attempt to start one fails, Temporal tries again
# after a minute at most, because it checks the backlog then; and a container may need half a minute to start.
_STARTING: Final = 90.0
# A reason for waiting that lasts for less is not reported.
_QUIET: Final = 5.0
# The number of a workflow task's attempt before which one has failed.
_FAILS_ONCE: Final = 2
# Queries in a row that a worker may leave unanswered before it counts as one that cannot answer them.
_PATIENCE: Final = 8
_MOST_NAMES: Final = 100

Reason: TypeAlias = dict[str, Any]
"""The data of `$run.waiting`."""


class Sight(NamedTuple):
    """A run as one look sees it.

    Attributes:
        described: Its description.
        history: What its history says; events that come during the look are added to it.
        tells: Whether its history is followed now.
        time: The monotonic time in seconds.
        started: Task queues for whose tasks Temporal starts workers, as far as verdicts have asked for it by `overdue`.
    """

    described: DescribeWorkflowExecutionResponse
    history: History
    tells: bool
    time: float
    started: frozenset[Queue] = frozenset()


class Verdict(NamedTuple):
    """The reason for which a run waits.

    Attributes:
        reason: The reason; None if the run does not wait.
        soon: Whether it may become clear soon.
        failure: The failure to add to the reason, if any.
        asks: Whether the workflow is to be asked for its handlers first; `Waits.answered` returns the reason then.
        overdue: The task queue of the reason, if it is to be asked first whether Temporal starts workers for it; if so,
            `Waits.reason` returns the reason of a sight that has it in `started`.
    """

    reason: Reason | None
    soon: bool = False
    failure: Failure | None = None
    asks: bool = False
    overdue: Queue | None = None


class Waits:
    """Decides for which reason one Temporal run waits, from one description to the next.

    Attributes:
        next_attempt: The monotonic time at which an activity's next attempt is due; infinity if none is.
    """

    def __init__(self) -> None:
        self.next_attempt = math.inf
        self._since: dict[str, float] = {}
        self._failing_since = 0.0
        self._quiet_since = 0.0
        self._quiet_length = -1
        self._asked_length = -1
        self._unanswered = 0

    def reason(self, sight: Sight, *, seen: Reason | None, reported: Reason | None) -> Verdict:
        """Return the reason for waiting.

        Args:
            sight: The run now.
            seen: The reason that the description before it had.
            reported: The reason that was reported last.
        """
        described, task = sight.described, sight.described.pending_workflow_task
        untaken = self._untaken(sight)
        failing = task.attempt > 1 and sight.history.task_failure is not None
        if failing or _has_started_again(task):
            return self._retries_its_task(sight, reported)
        self._failing_since = 0.0
        if untaken:
            queue, seconds = min(untaken, key=lambda task: task[1])
            if seconds <= 0:
                for_worker: Reason = {"for": "worker", "task_queue": queue.name}
                certain = for_worker == reported or queue in sight.started or seconds <= _UNTAKEN - _STARTING
                return Verdict(for_worker, overdue=None if certain else queue)
            return Verdict(reported if _is_for(reported, "worker") else None, seconds <= _UNTAKEN)
        length = described.workflow_execution_info.history_length
        if (
            described.pending_activities
            or described.pending_children
            or described.pending_nexus_operations
            or described.HasField("pending_workflow_task")
        ):
            self._quiet_length = length
            return Verdict(None)
        if length != self._quiet_length:
            # The first look of all does not know for how long it has been so.
            waiting = reported if self._quiet_length < 0 else None
            self._quiet_length, self._quiet_since = length, sight.time
            return Verdict(waiting, soon=True)
        if sight.time - self._quiet_since < _QUIET:
            return Verdict(seen, soon=True)
        return Verdict(seen, asks=self._asked_length != length)

    def answered(self, sight: Sight, metadata: WorkflowMetadata | None, *, seen: Reason | None) -> Verdict:
        """Return the reason of a run that has nothing under way: a timer, or somebody.

        Args:
            sight: The run now.
            metadata: Its handlers; None if nobody has answered.
            seen: The reason that the description before it had.
        """
        if metadata is None and self._unanswered < _PATIENCE:
            self._unanswered += 1
            return Verdict(seen, soon=True)
        self._unanswered, self._asked_length = 0, sight.described.workflow_execution_info.history_length
        timers = sight.history.timers if sight.tells else {}
        # A workflow that cannot be asked waits for input, if not for a timer.
        waiting: Reason = {"for": "timer" if metadata is not None or timers else "input"}
        if metadata is not None:
            definition = metadata.definition
            signals, updates = _names(definition.signal_definitions), _names(definition.update_definitions)
            if signals or updates:
                waiting = {"for": "input", "signals": signals, "updates": updates}
            if metadata.current_details:
                waiting["details"] = cut(metadata.current_details)
        if timers:
            waiting["until"] = timestamp(min(timers.values()))
        return Verdict(waiting)

    def _retries_its_task(self, sight: Sight, reported: Reason | None) -> Verdict:
        """A workflow task has failed, and is tried again; once may be a matter of a moment."""
        attempt = sight.described.pending_workflow_task.attempt
        self._failing_since = self._failing_since or sight.time
        if attempt <= _FAILS_ONCE and sight.time < self._failing_since + _QUIET:
            return Verdict(reported if _is_for(reported, "task_retry") else None, soon=True)
        return Verdict({"for": "task_retry", "attempt": attempt}, failure=sight.history.task_failure)

    def _untaken(self, sight: Sight) -> list[tuple[Queue, float]]:
        """Return the queues of tasks that no worker has accepted, and seconds until their report.

        Our clock may differ from Temporal's, so what counts is for how long we have seen a task.
        """
        found: dict[str, tuple[Queue, float]] = {}
        own_queue = sight.described.execution_config.task_queue.name
        task = sight.described.pending_workflow_task
        if task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
            # One that was lost with its worker's own queue is put on the common queue: nobody has taken it in between.
            name = sight.history.started if sight.tells else task.scheduled_time.ToNanoseconds()
            queue = Queue(own_queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
            found[f"task/{name}"] = (queue, _patience(queue, sight))
        for pending in sight.described.pending_activities:
            if pending.state == SCHEDULED:
                pause = pending.current_retry_interval.ToTimedelta().total_seconds() if pending.attempt > 1 else 0.0
                name_of_queue = pending.activity_options.task_queue.name or own_queue
                queue = Queue(name_of_queue, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
                found[f"{pending.activity_id}/{pending.attempt}"] = (queue, _patience(queue, sight) + pause)
        now = sight.time
        self._since = {name: self._since.get(name, now) for name in found}
        begins = [self._since[name] + patience - _UNTAKEN for name, (_, patience) in found.items()]
        self.next_attempt = min((at for at in begins if at > now), default=math.inf)
        return [(queue, self._since[name] + patience - now) for name, (queue, patience) in found.items()]


def _has_started_again(task: PendingWorkflowTaskInfo) -> bool:
    return task.attempt > 1 and task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED


def _patience(queue: Queue, sight: Sight) -> float:
    return _STARTING if queue in sight.started else _UNTAKEN


def _names(definitions: Iterable[WorkflowInteractionDefinition]) -> list[str]:
    return [cut(each.name) for each in definitions if each.name and not each.name.startswith("__")][:_MOST_NAMES]


def _is_for(waiting: dict[str, Any] | None, what: str) -> bool:
    return waiting is not None and waiting["for"] == what
