"""What a run is doing now, told when it changes: from outside the workflow, with no code in it.

One look serves all devices. Looks are frequent while things change and rare when nothing does, and while nobody is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC
from typing import Any, Final

import structlog
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.api.sdk.v1 import WorkflowInteractionDefinition, WorkflowMetadata
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.service import RPCError

from wakeline.errors import UnavailableError
from wakeline.events import ACTIVITY_RETRYING, ACTIVITY_STALLED, MAX_KEY_BYTES, RUN_WAITING, NewEvent, timestamp
from wakeline.gateway.runs import Run, RunState
from wakeline.gateway.temporal.copying.told import cut
from wakeline.gateway.temporal.telling import Teller
from wakeline.gateway.temporal.watching.history import ActivityAttempt, heartbeat_missed
from wakeline.gateway.temporal.watching.watch import RunWatch

METADATA_QUERY: Final = "__temporal_workflow_metadata"
_SOONEST: Final = 1.0
_RARELY: Final = 30.0
_UNWATCHED: Final = 2.0
# A task that nobody has taken for so long waits for a worker; a busy one takes it sooner.
_UNTAKEN: Final = 8.0
# What a workflow waits for between two steps is not told.
_QUIET: Final = 5.0
# So often a worker may leave a question unanswered before it counts as one that cannot answer it.
_PATIENCE: Final = 8
_MOST_NAMES: Final = 100
# Instead of when an attempt failed: it may have been told, and is not written down. It is told again, or that it is over.
_UNSURE: Final = -1
_log = structlog.get_logger(__name__)


class StateWatch:
    """Looks at one Temporal run, and tells what changes.

    Args:
        run: The run.
        watch: Its watch.
        teller: Tells its session.
        explain: Makes of a failure what is told of it.
        metadata: Asks the workflow what it can be told; None where nobody answers.
        watched: Whether a device is there.
        note: Writes down what was told: what the run waits for, and which activities are retried since when.
        turn: The Temporal run of its chain whose output has its turn. When it is over, so is what was told of a later one: that
            is told again in its own turn.

    Attributes:
        state: What was seen last.
    """

    def __init__(
        self,
        run: Run,
        watch: RunWatch,
        teller: Teller,
        *,
        explain: Callable[[Any], Awaitable[dict[str, Any]]],
        metadata: Callable[[], Awaitable[WorkflowMetadata | None]],
        watched: Callable[[], bool],
        note: Callable[[dict[str, Any] | None, dict[str, int], dict[str, int]], Awaitable[None]],
        turn: str,
    ) -> None:
        self.state = RunState(waiting=run.waiting)
        self._run = run
        self._watch = watch
        self._teller = teller
        self._explain = explain
        self._metadata = metadata
        self._watched = watched
        self._note = note
        self._name = run.run_id if run.run_id == turn else f"{turn}/{run.run_id}"
        self._waiting = run.waiting
        self._unsure = False  # what it waits for may have been told, and is not written down
        self._retrying = dict(run.retrying)
        self._failed = dict(run.failed)
        self._stalled: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._quiet_since = 0.0
        self._quiet_length = -1
        self._asked_length = -1
        self._unanswered = 0

    async def follow(self) -> None:
        """Look again and again until cancelled."""
        interval = _SOONEST
        while True:
            after = self._watch.happened
            try:
                changed = await self.look()
            except (RPCError, UnavailableError):  # also that there is no such run: the watch knows when to believe that
                changed = False
            changed |= self._watch.happened > after
            interval = _SOONEST if changed else min(interval * 1.6, _RARELY)
            if self._watched():
                # Between two looks so much time passes, whatever happens.
                await asyncio.sleep(_SOONEST)
                await self._watch.news(after, interval - _SOONEST)
            else:
                await self._until_watched()

    async def _until_watched(self) -> None:
        """Return when a device comes, or when it is time to look for nobody."""
        for _ in range(round(_RARELY / _UNWATCHED)):
            if self._watched():
                return
            await asyncio.sleep(_UNWATCHED)

    async def look(self) -> bool:
        """Look once, and tell what is new; True if there was something, or may soon be.

        Raises:
            RPCError: Temporal cannot be asked now.
        """
        described = (await self._watch.describe()).raw_description
        activities = {a.activity_id: await self._activity(a) for a in described.pending_activities if _tells(a)}
        waiting, soon = await self._waits_for(described)
        new = RunState(activities, waiting, self._moment(described))
        self.state = new  # who is told may look at once
        failed = {a.activity_id: _failed(a) for a in described.pending_activities if _tells(a)}
        return await self._tell(new, failed) or soon

    def _moment(self, described: DescribeWorkflowExecutionResponse) -> str:
        """What tells this moment of the run from others. Attempts come and go with nothing new in the history."""
        length, task = described.workflow_execution_info.history_length, described.pending_workflow_task.attempt
        failed = max((_failed(pending) for pending in described.pending_activities), default=0)
        return f"{self._run.run_id}/{length}/{task}/{failed}"

    async def _activity(self, pending: PendingActivityInfo) -> dict[str, Any]:
        retrying = pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        told: dict[str, Any] = {
            "activity": pending.activity_id,
            "activity_type": pending.activity_type.name,
            "attempt": pending.attempt,
            "state": "retrying" if retrying else "running",
            "next_at": None,
            "failure": await self._explain(pending.last_failure),
        }
        if retrying and pending.HasField("next_attempt_schedule_time"):
            told["next_at"] = _moment(pending.next_attempt_schedule_time)
        if heartbeat_missed(pending.last_failure):
            told["stalled"] = pending.attempt - 1
        return told

    async def _waits_for(self, described: DescribeWorkflowExecutionResponse) -> tuple[dict[str, Any] | None, bool]:
        """What the run waits for, and whether that may become clear soon."""
        untaken = self._untaken(described)
        if untaken:
            queue, seconds = min(untaken, key=lambda task: task[1])
            if seconds <= 0:
                return {"for": "worker", "task_queue": queue}, False
            return self._waiting if _is_for(self._waiting, "worker") else None, seconds <= _UNTAKEN
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
            waiting = self._waiting if self._quiet_length < 0 else None
            self._quiet_length, self._quiet_since = length, time.monotonic()
            return waiting, True
        if time.monotonic() - self._quiet_since < _QUIET:
            return self.state.waiting, True
        return await self._quiet(length)

    def _untaken(self, described: DescribeWorkflowExecutionResponse) -> list[tuple[str, float]]:
        """Tasks that nobody has taken: their queue, and in how many seconds that means that nobody is there to take them.

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
            if pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
                pause = pending.current_retry_interval.ToTimedelta().total_seconds() if pending.attempt > 1 else 0.0
                queue = pending.activity_options.task_queue.name or own_queue
                found[f"{pending.activity_id}/{pending.attempt}"] = (queue, _UNTAKEN + pause)
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in found}
        return [(queue, self._since[name] + patience - now) for name, (queue, patience) in found.items()]

    async def _quiet(self, length: int) -> tuple[dict[str, Any] | None, bool]:
        """The run has nothing under way: it waits for a timer, or for somebody."""
        if self._asked_length == length:
            return self.state.waiting, False
        metadata = await self._metadata()
        if metadata is None and self._unanswered < _PATIENCE:
            self._unanswered += 1
            return self.state.waiting, True
        self._unanswered, self._asked_length = 0, length
        timers = self._watch.history.timers if self._watch.tells else {}
        # Who cannot be asked waits for somebody if not for a timer.
        waiting: dict[str, Any] = {"for": "timer" if metadata is not None or timers else "input"}
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

    async def _tell(self, new: RunState, failed: dict[str, int]) -> bool:
        """Tell what has changed, every event under a name that only it has; True if something has."""
        retrying = {name: a["attempt"] for name, a in new.activities.items() if a["state"] == "retrying"}
        over = {name: attempt for name, attempt in self._retrying.items() if name not in new.activities}
        for name in retrying:
            if (self._retrying.get(name), self._failed.get(name)) != (retrying[name], failed[name]):
                data = {key: value for key, value in new.activities[name].items() if key not in ("state", "stalled")}
                self._retrying[name], self._failed[name] = retrying[name], _UNSURE
                await self._tell_of(ACTIVITY_RETRYING, name, data, f"{name}/{retrying[name]}/{failed[name]}")
        for name, attempt in over.items():
            data = {"activity": name, "attempt": attempt, "over": True}
            await self._tell_of(ACTIVITY_RETRYING, name, data, f"{name}/over/{attempt}/{self._failed.get(name, 0)}")
        stalled, self._watch.history.stalled = self._watch.history.stalled, []
        for name, activity in new.activities.items():
            if "stalled" in activity and self._stalled.get(name) != failed[name]:
                missed = ActivityAttempt(name, activity["activity_type"], activity["stalled"])
                stalled.append((failed[name], missed))
        for which, missed in stalled:
            self._stalled[missed.activity] = which
            name = f"{missed.activity}/{missed.attempt}/{which}"
            # Nothing ends that, and so it is told once.
            event = _event(self._teller, ACTIVITY_STALLED, missed._asdict(), missed.activity)
            await self._teller.tell(f"{ACTIVITY_STALLED[1:]}:{self._run.run_id}/{name}", event)
        waits = new.waiting != self._waiting or self._unsure
        if waits:
            self._unsure = True
            data = new.waiting or {"for": None}
            name = f"{new.current}/{data['for']}/{data.get('task_queue', '')}"
            await self._tell_of(RUN_WAITING, self._run.run, data, name)
        # Those that run again are still told of when they are over.
        told = {n: retrying.get(n, attempt) for n, attempt in self._retrying.items() if n not in over} | retrying
        # Of one that runs again it is known when what was told of it failed.
        told_of = {n: failed[n] if n in retrying else self._failed.get(n, 0) for n in told}
        if waits or (told, told_of) != (self._retrying, self._failed):
            await self._note(new.waiting, told, told_of)
            self._waiting, self._retrying, self._failed = new.waiting, told, told_of
            self._unsure = False
            return True
        return bool(stalled)

    async def _tell_of(self, topic: str, key: str, data: dict[str, Any], name: str) -> None:
        await self._teller.tell(f"{topic[1:]}:{self._name}/{name}", _event(self._teller, topic, data, key))


def over(teller: Teller, run: Run) -> list[NewEvent]:
    """What tells that what a Temporal run was last told to do is over, now that another one goes on from it."""
    waits = [_event(teller, RUN_WAITING, {"for": None}, run.run)] if run.waiting is not None else []
    return waits + [
        _event(teller, ACTIVITY_RETRYING, {"activity": name, "attempt": attempt, "over": True}, name)
        for name, attempt in run.retrying.items()
    ]


def _event(teller: Teller, topic: str, data: dict[str, Any], key: str) -> NewEvent:
    return teller.event(topic, data, key=key.encode()[:MAX_KEY_BYTES].decode(errors="ignore"))


def _tells(pending: PendingActivityInfo) -> bool:
    return pending.attempt > 1 and pending.HasField("last_failure")


def _failed(pending: PendingActivityInfo) -> int:
    """When its last attempt failed: no two attempts have the same, however often their numbers begin anew."""
    return pending.last_attempt_complete_time.ToNanoseconds()


def _names(definitions: Iterable[WorkflowInteractionDefinition]) -> list[str]:
    return [cut(each.name) for each in definitions if each.name and not each.name.startswith("__")][:_MOST_NAMES]


def _is_for(waiting: dict[str, Any] | None, what: str) -> bool:
    return waiting is not None and waiting["for"] == what


def _moment(stamp: Any) -> str:
    return timestamp(stamp.ToDatetime(tzinfo=UTC))
