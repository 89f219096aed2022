"""The events that the gateway appends about a run, also for each change of its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from wakeline.events import (
    ACTIVITY_PAUSED,
    ACTIVITY_RETRYING,
    ACTIVITY_STALLED,
    RUN_CLOSED,
    RUN_CONTINUED,
    RUN_DRAINED,
    RUN_STARTED,
    RUN_WAITING,
    SESSION_SETTLED,
    timestamp,
)
from wakeline.gateway.sessions import Run, RunState
from wakeline.temporal.endings import Ending
from wakeline.text import cut

# Instead of the time of a failure: it may have been reported and is not recorded. It is reported again, or its end.
_UNSURE: Final = -1
# Of the states of an activity, those that last until their event is followed by one with `over: true`.
_LASTING: Final = {"retrying": ACTIVITY_RETRYING, "paused": ACTIVITY_PAUSED}


class Report(NamedTuple):
    """An event to append.

    Attributes:
        topic: Its topic.
        data: Its data.
        key: Its key; None if it has none.
    """

    topic: str
    data: dict[str, Any]
    key: str | None = None


SETTLED = Report(SESSION_SETTLED, {})


def started(run: Run) -> Report:
    """Return the report that a run has begun."""
    data = {
        "workflow_id": run.workflow_id,
        "workflow_type": run.workflow_type,
        "run_id": run.run_id,
        "started_at": run.started_at,
    }
    if run.activity:
        data["kind"] = "activity"
    if run.namespace:
        data["namespace"] = run.namespace
    if run.chain:
        data["reset_of"] = run.chain
    return Report(RUN_STARTED, data)


def continued(run: Run, ending: Ending, *, drained: bool) -> Report:
    """Return the report that a run continues as another Temporal run."""
    data = {
        "workflow_id": run.workflow_id,
        "run_id": ending.next_run_id,
        "previous_run_id": run.run_id,
        "reason": ending.follows_by,
        # The next run has the stream that it received, even if this one can no longer be queried.
        "drained": drained or ending.carries is True,
    }
    return Report(RUN_CONTINUED, data)


def closed(run: Run, ending: Ending, details: dict[str, Any], *, drained: bool) -> Report:
    """Return the report that a run has ended.

    Args:
        run: The run.
        ending: How it ended.
        details: Its failure and its result, in their reported form.
        drained: Whether everything that it published is in the session.
    """
    data: dict[str, Any] = {
        "status": ending.status,
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "closed_at": timestamp(ending.closed_at),
        "drained": drained,
    }
    if run.activity:
        data["kind"] = "activity"
    if ending.status == "unknown":
        data |= {"workflow_type": run.workflow_type, "started_at": run.started_at}
    if ending.reason or ending.status == "terminated":
        data["reason"] = cut(ending.reason)
    if ending.status == "timed_out":
        data["failure"] = {"message": "the workflow timed out"}
    return Report(RUN_CLOSED, data | details)


def drained(run: Run) -> Report:
    """Return the report that the rest of an ended run's stream is in the session."""
    return Report(RUN_DRAINED, {"workflow_id": run.workflow_id, "run_id": run.run_id})


def over(run: Run) -> list[Report]:
    """Return the reports that the states of a Temporal run are over: another one follows."""
    waits = [Report(RUN_WAITING, {"for": None}, run.run)] if run.waiting is not None else []
    lasting = Reported.recorded(run).lasting
    return waits + [
        _over(topic, name, attempt) for kind, topic in _LASTING.items() for name, (attempt, _) in lasting[kind].items()
    ]


class Reported(NamedTuple):
    """The state of a run as the log has it.

    Attributes:
        waiting: The reason for waiting; None if it does not wait.
        lasting: Its activities that are retried, and those that are paused: the attempt, and when each entered that state,
            in ns.
        sure: Whether the log has that reason, and not another one that the record does not have.
    """

    waiting: dict[str, Any] | None
    lasting: Mapping[str, Mapping[str, tuple[int, int]]]
    sure: bool = True

    @classmethod
    def recorded(cls, run: Run) -> Reported:
        """Return the state that the record of a run has."""
        retrying = {name: (attempt, run.failed.get(name, 0)) for name, attempt in run.retrying.items()}
        return cls(run.waiting, {"retrying": retrying, "paused": run.paused})

    @classmethod
    def present(cls, state: RunState, since: Mapping[str, int]) -> Reported:
        """Return a present state; `since` has the time at which each activity entered its own."""
        lasting: dict[str, dict[str, tuple[int, int]]] = {kind: {} for kind in _LASTING}
        for name, activity in state.activities.items():
            if activity["state"] in lasting:
                lasting[activity["state"]][name] = (activity["attempt"], since[name])
        return cls(state.waiting, lasting)

    def record(self) -> dict[str, Any]:
        """Return the fields of the run's record."""
        retrying = self.lasting["retrying"]
        return {
            "waiting": self.waiting,
            "retrying": {name: attempt for name, (attempt, _) in retrying.items()},
            "failed": {name: since for name, (_, since) in retrying.items()},
            "paused": dict(self.lasting["paused"]),
        }


class Change(NamedTuple):
    """A change of a run's state.

    Attributes:
        report: The event that reports it.
        name: What tells it from all other changes of the Temporal run.
        meanwhile: The state that the log may have from the moment at which the event is appended; None if the event reports
            what has happened rather than a state.
    """

    report: Report
    name: str
    meanwhile: Reported | None


def changes(
    run: str, before: Reported, state: RunState, now: Reported, stalled: Mapping[str, dict[str, Any]] = {}
) -> Iterator[Change]:
    """Yield the changes from the state of a run that was reported to its present one.

    Args:
        run: The run's name.
        before: The state that was reported.
        state: The present state.
        now: The same, as it is to be reported.
        stalled: The activities' attempts that have timed out for want of a heartbeat, by their names.
    """
    meanwhile = before
    for kind, topic in _LASTING.items():
        past, present = before.lasting[kind], now.lasting[kind]
        for name, (attempt, since) in present.items():
            if past.get(name) != (attempt, since):
                unsure = {**meanwhile.lasting[kind], name: (attempt, _UNSURE)}
                meanwhile = meanwhile._replace(lasting={**meanwhile.lasting, kind: unsure})
                report = Report(topic, _data(state.activities[name]), name)
                yield Change(report, f"{name}/{attempt}/{since}", meanwhile)
        for name, (attempt, since) in past.items():
            if name not in present:
                yield Change(_over(topic, name, attempt), f"{name}/over/{attempt}/{since}", meanwhile)
    for name, attempted in stalled.items():
        yield Change(Report(ACTIVITY_STALLED, attempted, attempted["activity"]), name, None)
    if before.waiting != now.waiting or not before.sure:
        data = now.waiting or {"for": None}
        name = f"{state.current}/{data['for']}/{data.get('task_queue', '')}"
        yield Change(Report(RUN_WAITING, data, run), name, meanwhile._replace(sure=False))


def _data(activity: dict[str, Any]) -> dict[str, Any]:
    """Return the data of `$activity.retrying` or `$activity.paused` for a described activity."""
    left_out = {"state", "stalled"}
    if activity["state"] == "paused":
        left_out |= {"next_at"} if activity["failure"] is not None else {"next_at", "failure"}
    return {key: value for key, value in activity.items() if key not in left_out}


def _over(topic: str, activity: str, attempt: int) -> Report:
    return Report(topic, {"activity": activity, "attempt": attempt, "over": True}, activity)
