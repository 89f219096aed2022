"""The state of a run, reported when it changes: from outside, without code in the workflow.

One description serves all devices. It is frequent while the state changes, and rare otherwise and without devices.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.service import RPCError

from wakeline.errors import UnavailableError
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.life.reports import Reported, changes
from wakeline.gateway.following.watching.activities import described, last_failed, since
from wakeline.gateway.following.watching.waiting import METADATA_QUERY, Sight, Waits
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.sessions import RunState
from wakeline.temporal.deployments import Queue
from wakeline.temporal.history import ActivityAttempt

_SOONEST: Final = 1.0
_RARELY: Final = 30.0
_UNWATCHED: Final = 2.0


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
        self._reader = reader
        self._waits = Waits()
        self._name = run_id if run_id == run.run_id else f"{run.run_id}/{run_id}"
        self._reported = Reported.recorded(run)
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
        """Describe the run, and report what is new; return whether anything is, or may be soon.

        Raises:
            RPCError: Temporal cannot be asked now.
        """
        description = await self._watch.describe()
        pending = description.pending_activities
        activities = await described(pending, self._subject.explain)
        waiting, soon = await self._reason(description)
        # Readers of the events may read it at once.
        self.state = RunState(activities, waiting, self._moment(description))
        failed = {a.activity_id: last_failed(a) for a in pending}
        return await self._report(self.state, since(pending), failed) or soon

    async def _reason(self, description: DescribeWorkflowExecutionResponse) -> tuple[dict[str, Any] | None, bool]:
        """Return the reason for which the run waits, and whether it may become clear soon."""
        watch, seen = self._watch, self.state.waiting
        sight = Sight(description, watch.history, tells=watch.tells, time=time.monotonic())
        verdict = self._waits.reason(sight, seen=seen, reported=self._reported.waiting)
        while (queue := verdict.overdue) is not None and await self._may_start(description, queue):
            sight = sight._replace(started=sight.started | {queue})
            verdict = self._waits.reason(sight, seen=seen, reported=self._reported.waiting)
        if verdict.asks:
            metadata = await self._reader.ask(METADATA_QUERY, WorkflowMetadata)
            # While the workflow was asked, its history may have begun to be followed, or ceased to be.
            sight = sight._replace(history=watch.history, tells=watch.tells)
            verdict = self._waits.answered(sight, metadata, seen=seen)
        if verdict.failure is None:
            return verdict.reason, verdict.soon
        return {**(verdict.reason or {}), "failure": await self._subject.explain(verdict.failure)}, verdict.soon

    async def _may_start(self, description: DescribeWorkflowExecutionResponse, queue: Queue) -> bool:
        """Return whether Temporal may be starting a worker for the run's tasks on a queue."""
        subject, versioning = self._subject, description.workflow_execution_info.versioning_info
        return await subject.parts.serverless.starts(subject.connection, versioning, queue)

    def _moment(self, described: DescribeWorkflowExecutionResponse) -> str:
        """Return an id of this moment of the run; attempts come and go without a new event."""
        length, task = described.workflow_execution_info.history_length, described.pending_workflow_task.attempt
        failed = max((last_failed(pending) for pending in described.pending_activities), default=0)
        return f"{self._run_id}/{length}/{task}/{failed}"

    async def _report(self, state: RunState, stamps: dict[str, int], failed: dict[str, int]) -> bool:
        """Append an event for each change, each under its own publisher; return whether any.

        Args:
            state: The new state.
            stamps: The time at which each activity entered its state.
            failed: The time at which the last attempt of each failed.
        """
        now, changed = Reported.present(state, stamps), False
        missed = self._watch.history.stalled
        stalled = self._stalled_now(state, failed)
        attempts = {name: attempt._asdict() for name, (_, attempt) in stalled.items()}
        for change in changes(self._subject.run.run, self._reported, state, now, attempts):
            topic, name = change.report.topic, self._run_id  # what does not last is not reported again in its turn
            if change.meanwhile is not None:
                changed, name, self._reported = True, self._name, change.meanwhile
            await self._subject.append(f"{topic[1:]}:{name}/{change.name}", change.report)
            if change.meanwhile is None:  # only now: a look may be stopped before its event is appended
                reported = stalled[change.name]
                self._stalled[reported[1].activity] = reported[0]
                missed[:] = [each for each in missed if each != reported]
        if changed:
            await self._subject.copy.change(**now.record())
            self._reported = now
        return changed or bool(stalled)

    def _stalled_now(self, state: RunState, failed: dict[str, int]) -> dict[str, tuple[int, ActivityAttempt]]:
        """Return the attempts with a missed heartbeat to report, each by a name of its own."""
        stalled = list(self._watch.history.stalled)
        for name, activity in state.activities.items():
            if "stalled" in activity and self._stalled.get(name) != failed[name]:
                missed = ActivityAttempt(name, activity["activity_type"], activity["stalled"])
                stalled.append((failed[name], missed))
        return {f"{each.activity}/{each.attempt}/{which}": (which, each) for which, each in stalled}
