"""The reason for which a run waits: for a worker, a retry of its task, input or a timer."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.api.sdk.v1 import WorkflowInteractionDefinition, WorkflowMetadata
from temporalio.api.workflow.v1 import PendingWorkflowTaskInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from wakeline.events import timestamp
from wakeline.gateway.following.watching.activities import SCHEDULED
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.text import cut

METADATA_QUERY: Final = "__temporal_workflow_metadata"
# A task that no worker has accepted for so long waits for a worker; a busy worker accepts it sooner.
_UNTAKEN: Final = 8.0
# A reason for waiting that lasts for less is not reported.
_QUIET: Final = 5.0
# The number of a workflow task's attempt before which one has failed.
_FAILS_ONCE: Final = 2
# Queries in a row that a worker may leave unanswered before it counts as one that cannot answer them.
_PATIENCE: Final = 8
_MOST_NAMES: Final = 100

Reason: TypeAlias = dict[str, Any]
"""The data of `$run.waiting`."""


class Waits:
    """Finds the reason for which one Temporal run waits, from one description to the next.

    Args:
        watch: The run's watch.
        explain: Makes the reported form of a failure.
        metadata: Asks the workflow for its handlers; returns None if no worker answers.

    Attributes:
        next_attempt: The monotonic time at which an activity's next attempt is due; infinity if none is.
    """

    def __init__(
        self,
        watch: RunWatch,
        explain: Callable[[Any], Awaitable[dict[str, Any]]],
        metadata: Callable[[], Awaitable[WorkflowMetadata | None]],
    ) -> None:
        self.next_attempt = math.inf
        self._watch = watch
        self._explain = explain
        self._metadata = metadata
        self._since: dict[str, float] = {}
        self._failing_since = 0.0
        self._quiet_since = 0.0
        self._quiet_length = -1
        self._asked_length = -1
        self._unanswered = 0

    async def reason(
        self, described: DescribeWorkflowExecutionResponse, *, seen: Reason | None, reported: Reason | None
    ) -> tuple[Reason | None, bool]:
        """Return the reason for waiting, and whether it may become clear soon.

        Args:
            described: The run's description.
            seen: The reason that the description before it had.
            reported: The reason that was reported last.
        """
        untaken = self._untaken(described)
        failing = described.pending_workflow_task.attempt > 1 and self._watch.history.task_failure is not None
        if failing or _has_started_again(described.pending_workflow_task):
            return await self._retries_its_task(described.pending_workflow_task.attempt, reported)
        self._failing_since = 0.0
        if untaken:
            queue, seconds = min(untaken, key=lambda task: task[1])
            if seconds <= 0:
                return {"for": "worker", "task_queue": queue}, False
            return reported if _is_for(reported, "worker") else None, seconds <= _UNTAKEN
        busy = (
            described.pending_activities
            or described.pending_children
            or described.pending_nexus_operations
            or described.HasField("pending_workflow_task")
        )
        length = described.workflow_execution_info.history_length
        if busy:
            self._quiet_length = length
            return None, False
        if length != self._quiet_length:
            # The first look of all does not know for how long it has been so.
            waiting = reported if self._quiet_length < 0 else None
            self._quiet_length, self._quiet_since = length, time.monotonic()
            return waiting, True
        if time.monotonic() - self._quiet_since < _QUIET:
            return seen, True
        return await self._quiet(length, seen)

    async def _retries_its_task(self, attempt: int, reported: Reason | None) -> tuple[Reason | None, bool]:
        """A workflow task has failed, and is tried again; once may be a matter of a moment."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if attempt <= _FAILS_ONCE and now < self._failing_since + _QUIET:
            return reported if _is_for(reported, "task_retry") else None, True
        waiting: Reason = {"for": "task_retry", "attempt": attempt}
        if (failure := self._watch.history.task_failure) is not None:
            waiting["failure"] = await self._explain(failure)
        return waiting, False

    def _untaken(self, described: DescribeWorkflowExecutionResponse) -> list[tuple[str, float]]:
        """Return the queues of tasks that no worker has accepted, and seconds until their report.

        Our clock may differ from Temporal's, so what counts is for how long we have seen a task.
        """
        found: dict[str, tuple[str, float]] = {}
        own_queue = described.execution_config.task_queue.name
        task = described.pending_workflow_task
        if task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
            # One that was lost with its worker's own queue is put on the common queue: nobody has taken it in between.
            name = self._watch.history.started if self._watch.tells else task.scheduled_time.ToNanoseconds()
            found[f"task/{name}"] = (own_queue, _UNTAKEN)
        for pending in described.pending_activities:
            if pending.state == SCHEDULED:
                pause = pending.current_retry_interval.ToTimedelta().total_seconds() if pending.attempt > 1 else 0.0
                queue = pending.activity_options.task_queue.name or own_queue
                found[f"{pending.activity_id}/{pending.attempt}"] = (queue, _UNTAKEN + pause)
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in found}
        begins = [self._since[name] + patience - _UNTAKEN for name, (_, patience) in found.items()]
        self.next_attempt = min((at for at in begins if at > now), default=math.inf)
        return [(queue, self._since[name] + patience - now) for name, (queue, patience) in found.items()]

    async def _quiet(self, length: int, seen: Reason | None) -> tuple[Reason | None, bool]:
        """The run has nothing under way: it waits for a timer, or for somebody."""
        if self._asked_length == length:
            return seen, False
        metadata = await self._metadata()
        if metadata is None and self._unanswered < _PATIENCE:
            self._unanswered += 1
            return seen, True
        self._unanswered, self._asked_length = 0, length
        timers = self._watch.history.timers if self._watch.tells else {}
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
        return waiting, False


def _has_started_again(task: PendingWorkflowTaskInfo) -> bool:
    return task.attempt > 1 and task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED


def _names(definitions: Iterable[WorkflowInteractionDefinition]) -> list[str]:
    return [cut(each.name) for each in definitions if each.name and not each.name.startswith("__")][:_MOST_NAMES]


def _is_for(waiting: dict[str, Any] | None, what: str) -> bool:
    return waiting is not None and waiting["for"] == what
