"""The pending activities of a run, from Temporal's description: retried, paused or stalled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo

from wakeline.events import timestamp
from wakeline.temporal.history import heartbeat_missed
from wakeline.text import cut

SCHEDULED = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
_PAUSED = PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED


async def described(
    pending: Iterable[PendingActivityInfo], explain: Callable[[Any], Awaitable[dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Return the activities to report, by id, as `GET /v1/sessions/{session}` lists them.

    Args:
        pending: The pending activities, as Temporal describes them.
        explain: Makes the reported form of a failure.
    """
    return {a.activity_id: await _described(a, explain) for a in pending if _is_reported(a)}


def since(pending: Iterable[PendingActivityInfo]) -> dict[str, int]:
    """Return the time at which each activity entered its state, by id, in nanoseconds.

    It is unique for each retry and each pause, unlike the attempt, which restarts when an id is used again.
    """
    return {a.activity_id: _since(a) for a in pending if _is_reported(a)}


def last_failed(pending: PendingActivityInfo) -> int:
    """Return the time at which its last attempt failed; unique, unlike the attempt's number."""
    return pending.last_attempt_complete_time.ToNanoseconds()


def _is_reported(pending: PendingActivityInfo) -> bool:
    return (pending.attempt > 1 and pending.HasField("last_failure")) or pending.state == _PAUSED


def _since(pending: PendingActivityInfo) -> int:
    if pending.state == _PAUSED:
        return pending.pause_info.pause_time.ToNanoseconds()
    if pending.state == SCHEDULED:
        # After a pause an attempt is to come again, without another having failed. Not `next_attempt_schedule_time`: that is
        # unset once the attempt is due, and the attempt would be reported twice if a worker takes it late.
        return max(last_failed(pending), pending.scheduled_time.ToNanoseconds())
    return last_failed(pending)


async def _described(
    pending: PendingActivityInfo, explain: Callable[[Any], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    states = {SCHEDULED: "retrying", _PAUSED: "paused"}
    state = states.get(pending.state, "running")
    reported: dict[str, Any] = {
        "activity": pending.activity_id,
        "activity_type": pending.activity_type.name,
        "attempt": pending.attempt,
        "state": state,
        "next_at": None,
        "failure": await explain(pending.last_failure) if pending.HasField("last_failure") else None,
    }
    if state == "retrying" and pending.HasField("next_attempt_schedule_time"):
        reported["next_at"] = timestamp(pending.next_attempt_schedule_time.ToDatetime(tzinfo=UTC))
    if state == "paused":
        reported |= _pause(pending)
    if heartbeat_missed(pending.last_failure):
        reported["stalled"] = pending.attempt - 1
    return reported


def _pause(pending: PendingActivityInfo) -> dict[str, str]:
    """Return the time of an activity's pause and, if it was paused by hand, who did it and why."""
    manual = pending.pause_info.manual
    said = {"by": cut(manual.identity), "reason": cut(manual.reason)}
    paused_at = timestamp(pending.pause_info.pause_time.ToDatetime(tzinfo=UTC))
    return {"paused_at": paused_at} | {key: text for key, text in said.items() if text}
