"""The events that the gateway appends about a run: their topics and data."""

from __future__ import annotations

from typing import Any, NamedTuple

from wakeline.events import (
    ACTIVITY_PAUSED,
    ACTIVITY_RETRYING,
    RUN_CLOSED,
    RUN_CONTINUED,
    RUN_DRAINED,
    RUN_STARTED,
    RUN_WAITING,
    SESSION_SETTLED,
    timestamp,
)
from wakeline.gateway.sessions import Run
from wakeline.temporal.endings import Ending
from wakeline.text import cut


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
    lasting = [(ACTIVITY_RETRYING, name, attempt) for name, attempt in run.retrying.items()]
    lasting += [(ACTIVITY_PAUSED, name, attempt) for name, (attempt, _) in run.paused.items()]
    return waits + [
        Report(topic, {"activity": name, "attempt": attempt, "over": True}, name) for topic, name, attempt in lasting
    ]
