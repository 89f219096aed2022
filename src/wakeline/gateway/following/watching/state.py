"""What a run is doing now, told when it changes: from outside the workflow, with no code in it.

One look serves all devices. Looks are frequent while things change and rare when nothing does, and while nobody is there.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.api.sdk.v1 import WorkflowInteractionDefinition, WorkflowMetadata
from temporalio.api.workflow.v1 import PendingWorkflowTaskInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.service import RPCError

from wakeline.errors import UnavailableError
from wakeline.events import (
    ACTIVITY_PAUSED,
    ACTIVITY_RETRYING,
    ACTIVITY_STALLED,
    MAX_KEY_BYTES,
    RUN_WAITING,
    NewEvent,
    timestamp,
)
from wakeline.gateway.following.copying.told import cut
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.following.watching.activities import SCHEDULED, described, event_data, last_failed, since
from wakeline.gateway.following.watching.history import ActivityAttempt
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.sessions import Run, RunState

METADATA_QUERY: Final = "__temporal_workflow_metadata"
_SOONEST: Final = 1.0
_RARELY: Final = 30.0
_UNWATCHED: Final = 2.0
# A task that nobody has taken for so long waits for a worker; a busy one takes it sooner.
_UNTAKEN: Final = 8.0
# What a workflow waits for between two steps is not told.
_QUIET: Final = 5.0
# The number of a workflow task's attempt before which one has failed.
_FAILS_ONCE: Final = 2
# So often a worker may leave a question unanswered before it counts as one that cannot answer it.
_PATIENCE: Final = 8
_MOST_NAMES: Final = 100
# Instead of when an attempt failed: it may have been told, and is not written down. It is told again, or that it is over.
_UNSURE: Final = -1
# Of the states of an activity, those that last until their event is followed by one with `over: true`.
_LASTING: Final = {"retrying": ACTIVITY_RETRYING, "paused": ACTIVITY_PAUSED}

Note: TypeAlias = Callable[..., Awaitable[None]]
"""Writes down what was reported of a run; takes these fields of a `Run` by keyword."""


class StateWatch:
    """Looks at one Temporal run, and tells what changes.

    Args:
        run: The run.
        watch: Its watch.
        teller: Tells its session.
        explain: Makes of a failure what is told of it.
        metadata: Asks the workflow what it can be told; None where nobody answers.
        watched: Whether a device is there.
        note: Writes down what was reported: what the run waits for, and which activities are retried or paused.
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
        note: Note,
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
        # Of what lasts: the attempt, and since when.
        self._lasting = {
            "retrying": {name: (attempt, run.failed.get(name, 0)) for name, attempt in run.retrying.items()},
            "paused": dict(run.paused),
        }
        self._stalled: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._next_attempt = math.inf  # when one is to begin, by our clock
        self._failing_since = 0.0
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
            # The history does not show that the next attempt of an activity has begun.
            interval = min(interval, max(self._next_attempt - time.monotonic(), _SOONEST))
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
        description = (await self._watch.describe()).raw_description
        pending = description.pending_activities
        activities = await described(pending, self._explain)
        waiting, soon = await self._waits_for(description)
        new = RunState(activities, waiting, self._moment(description))
        self.state = new  # who is told may look at once
        failed = {a.activity_id: last_failed(a) for a in pending}
        return await self._tell(new, since(pending), failed) or soon

    def _moment(self, described: DescribeWorkflowExecutionResponse) -> str:
        """What tells this moment of the run from others. Attempts come and go with nothing new in the history."""
        length, task = described.workflow_execution_info.history_length, described.pending_workflow_task.attempt
        failed = max((last_failed(pending) for pending in described.pending_activities), default=0)
        return f"{self._run.run_id}/{length}/{task}/{failed}"

    async def _waits_for(self, described: DescribeWorkflowExecutionResponse) -> tuple[dict[str, Any] | None, bool]:
        """What the run waits for, and whether that may become clear soon."""
        untaken = self._untaken(described)
        failing = described.pending_workflow_task.attempt > 1 and self._watch.history.task_failure is not None
        if failing or _has_started_again(described.pending_workflow_task):
            return await self._retries_its_task(described.pending_workflow_task.attempt)
        self._failing_since = 0.0
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

    async def _retries_its_task(self, attempt: int) -> tuple[dict[str, Any] | None, bool]:
        """A workflow task has failed, and is tried again; once may be a matter of a moment."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if attempt <= _FAILS_ONCE and now < self._failing_since + _QUIET:
            return self._waiting if _is_for(self._waiting, "task_retry") else None, True
        waiting: dict[str, Any] = {"for": "task_retry", "attempt": attempt}
        if (failure := self._watch.history.task_failure) is not None:
            waiting["failure"] = await self._explain(failure)
        return waiting, False

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
            if pending.state == SCHEDULED:
                pause = pending.current_retry_interval.ToTimedelta().total_seconds() if pending.attempt > 1 else 0.0
                queue = pending.activity_options.task_queue.name or own_queue
                found[f"{pending.activity_id}/{pending.attempt}"] = (queue, _UNTAKEN + pause)
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in found}
        begins = [self._since[name] + patience - _UNTAKEN for name, (_, patience) in found.items()]
        self._next_attempt = min((at for at in begins if at > now), default=math.inf)
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

    async def _tell(self, new: RunState, stamps: dict[str, int], failed: dict[str, int]) -> bool:
        """Append an event for each change, each under its own publisher; return whether any.

        Args:
            new: The new state.
            stamps: The time at which each activity entered its state.
            failed: The time at which the last attempt of each failed.
        """
        changed = False
        for state, topic in _LASTING.items():
            changed |= await self._tell_lasting(state, topic, new, stamps)
        stalled = await self._tell_stalled(new, failed)
        waits = new.waiting != self._waiting or self._unsure
        if waits:
            self._unsure = True
            data = new.waiting or {"for": None}
            name = f"{new.current}/{data['for']}/{data.get('task_queue', '')}"
            await self._tell_of(RUN_WAITING, self._run.run, data, name)
        if waits or changed:
            retrying, paused = self._lasting["retrying"], self._lasting["paused"]
            await self._note(
                waiting=new.waiting,
                retrying={name: attempt for name, (attempt, _) in retrying.items()},
                failed={name: stamp for name, (_, stamp) in retrying.items()},
                paused=dict(paused),
            )
            self._waiting, self._unsure = new.waiting, False
            return True
        return stalled

    async def _tell_lasting(self, state: str, topic: str, new: RunState, stamps: dict[str, int]) -> bool:
        """Append events for the activities that have entered a state, and that have left it."""
        before = self._lasting[state]
        now = {name: (a["attempt"], stamps[name]) for name, a in new.activities.items() if a["state"] == state}
        if before == now:
            return False
        for name, (attempt, stamp) in now.items():
            if before.get(name) != (attempt, stamp):
                before[name] = (attempt, _UNSURE)
                await self._tell_of(topic, name, event_data(new.activities[name]), f"{name}/{attempt}/{stamp}")
        for name, (attempt, stamp) in before.items():
            if name not in now:
                data = {"activity": name, "attempt": attempt, "over": True}
                await self._tell_of(topic, name, data, f"{name}/over/{attempt}/{stamp}")
        self._lasting[state] = now
        return True

    async def _tell_stalled(self, new: RunState, failed: dict[str, int]) -> bool:
        """Append an event, once, for each attempt that has timed out for want of a heartbeat."""
        stalled, self._watch.history.stalled = self._watch.history.stalled, []
        for name, activity in new.activities.items():
            if "stalled" in activity and self._stalled.get(name) != failed[name]:
                missed = ActivityAttempt(name, activity["activity_type"], activity["stalled"])
                stalled.append((failed[name], missed))
        for which, missed in stalled:
            self._stalled[missed.activity] = which
            name = f"{missed.activity}/{missed.attempt}/{which}"
            event = _event(self._teller, ACTIVITY_STALLED, missed._asdict(), missed.activity)
            await self._teller.tell(f"{ACTIVITY_STALLED[1:]}:{self._run.run_id}/{name}", event)
        return bool(stalled)

    async def _tell_of(self, topic: str, key: str, data: dict[str, Any], name: str) -> None:
        await self._teller.tell(f"{topic[1:]}:{self._name}/{name}", _event(self._teller, topic, data, key))


def over(teller: Teller, run: Run) -> list[NewEvent]:
    """What tells that what a Temporal run was last told to do is over, now that another one goes on from it."""
    waits = [_event(teller, RUN_WAITING, {"for": None}, run.run)] if run.waiting is not None else []
    lasting = [(ACTIVITY_RETRYING, name, attempt) for name, attempt in run.retrying.items()]
    lasting += [(ACTIVITY_PAUSED, name, attempt) for name, (attempt, _) in run.paused.items()]
    return waits + [
        _event(teller, topic, {"activity": name, "attempt": attempt, "over": True}, name)
        for topic, name, attempt in lasting
    ]


def _event(teller: Teller, topic: str, data: dict[str, Any], key: str) -> NewEvent:
    return teller.event(topic, data, key=key.encode()[:MAX_KEY_BYTES].decode(errors="ignore"))


def _has_started_again(task: PendingWorkflowTaskInfo) -> bool:
    return task.attempt > 1 and task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED


def _names(definitions: Iterable[WorkflowInteractionDefinition]) -> list[str]:
    return [cut(each.name) for each in definitions if each.name and not each.name.startswith("__")][:_MOST_NAMES]


def _is_for(waiting: dict[str, Any] | None, what: str) -> bool:
    return waiting is not None and waiting["for"] == what
