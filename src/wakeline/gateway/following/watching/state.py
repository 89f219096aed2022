"""The state of a run, reported when it changes: from outside, without code in the workflow.

One description serves all devices. It is frequent while the state changes, and rare otherwise and without devices.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Final

from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.service import RPCError

from wakeline.errors import UnavailableError
from wakeline.events import (
    ACTIVITY_PAUSED,
    ACTIVITY_RETRYING,
    ACTIVITY_STALLED,
    RUN_WAITING,
)
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.watching.activities import described, event_data, last_failed, since
from wakeline.gateway.following.watching.waiting import METADATA_QUERY, Waits
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.sessions import RunState
from wakeline.temporal.history import ActivityAttempt

_SOONEST: Final = 1.0
_RARELY: Final = 30.0
_UNWATCHED: Final = 2.0
# Instead of the time of a failure: it may have been reported and is not recorded. It is reported again, or its end.
_UNSURE: Final = -1
# Of the states of an activity, those that last until their event is followed by one with `over: true`.
_LASTING: Final = {"retrying": ACTIVITY_RETRYING, "paused": ACTIVITY_PAUSED}


class StateWatch:
    """Describes one Temporal run, and reports what changes.

    When the Temporal run whose output has its turn is over, so are the reported states of a later one, which are reported
    again in its own turn.

    Args:
        subject: The run, and with it the Temporal run whose output has its turn.
        run_id: The Temporal run to describe: that one or a later one.
        watch: Its watch.
        reader: Asks it for its handlers.

    Attributes:
        state: What was seen last.
    """

    def __init__(self, subject: Subject, run_id: str, watch: RunWatch, reader: StreamReader) -> None:
        run = subject.run
        self.state = RunState(waiting=run.waiting)
        self._subject = subject
        self._run_id = run_id
        self._watch = watch
        self._waits = Waits(watch, subject.explain, partial(reader.ask, METADATA_QUERY, WorkflowMetadata))
        self._name = run_id if run_id == run.run_id else f"{run.run_id}/{run_id}"
        self._waiting = run.waiting
        self._unsure = False  # the reason for waiting may have been reported, and is not recorded
        # Of what lasts: the attempt, and since when.
        self._lasting = {
            "retrying": {name: (attempt, run.failed.get(name, 0)) for name, attempt in run.retrying.items()},
            "paused": dict(run.paused),
        }
        self._stalled: dict[str, int] = {}

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
            interval = min(interval, max(self._waits.next_attempt - time.monotonic(), _SOONEST))
            if self._watched():
                # Between two looks so much time passes, whatever happens.
                await asyncio.sleep(_SOONEST)
                await self._watch.news(after, interval - _SOONEST)
            else:
                await self._until_watched()

    def _watched(self) -> bool:
        return self._subject.parts.audience.watches(self._subject.session)

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
        activities = await described(pending, self._subject.explain)
        waiting, soon = await self._waits.reason(description, seen=self.state.waiting, reported=self._waiting)
        new = RunState(activities, waiting, self._moment(description))
        self.state = new  # readers of the events may read the state at once
        failed = {a.activity_id: last_failed(a) for a in pending}
        return await self._tell(new, since(pending), failed) or soon

    def _moment(self, described: DescribeWorkflowExecutionResponse) -> str:
        """Return an id of this moment of the run; attempts come and go without a new event."""
        length, task = described.workflow_execution_info.history_length, described.pending_workflow_task.attempt
        failed = max((last_failed(pending) for pending in described.pending_activities), default=0)
        return f"{self._run_id}/{length}/{task}/{failed}"

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
            await self._tell_of(RUN_WAITING, self._subject.run.run, data, name)
        if waits or changed:
            retrying, paused = self._lasting["retrying"], self._lasting["paused"]
            await self._subject.copy.change(
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
            event = self._subject.teller.event(ACTIVITY_STALLED, missed._asdict(), key=missed.activity)
            await self._subject.teller.tell(f"{ACTIVITY_STALLED[1:]}:{self._run_id}/{name}", event)
        return bool(stalled)

    async def _tell_of(self, topic: str, key: str, data: dict[str, Any], name: str) -> None:
        teller = self._subject.teller
        await teller.tell(f"{topic[1:]}:{self._name}/{name}", teller.event(topic, data, key=key))
