"""The rules of a run that has ended before its stream could be read to the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life import observations as saw
from wakeline.gateway.following.life import reports
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.life.phases import AGAIN_SECONDS, Life, Now, Phase, Step, rule
from wakeline.gateway.sessions import Run, Unread
from wakeline.temporal.failures import UNKNOWN_TIMES

# The pauses between attempts.
_SOONEST: Final = 2.0
_RARELY: Final = 60.0


def next_rest(run: Run, deadline: float | None, pause: float = 0.0) -> do.ReadRest:
    """Return the effect that reads the rest of the earliest Temporal run that is not read yet.

    Args:
        run: The run.
        deadline: The time at which to stop; None without a limit.
        pause: Seconds to wait before.
    """
    return do.ReadRest(deadline, pause, run.unread[0] if run.unread else None)


@rule(
    Phase.RESTING,
    saw.Read,
    {Phase.RESTING: "no answer yet", Phase.DONE: "read ($run.drained)"},
)
def _rest_read(life: Life, now: Now, read: saw.Read) -> Step:
    run, answer = now.run, read.answer
    unread = run.unread[0] if run.unread else None
    if answer is Answer.SESSION_CLOSED:
        return replace(life, phase=Phase.DONE), ()
    if read.run_id != (unread.run_id if unread else run.run_id):
        return life, ()
    if unread is not None:
        # A reset may have undone it: then its publisher is fenced.
        if read.fenced or answer.is_final:
            return _drop(life, run, unread, whole=answer is Answer.READ and unread.stream == run.stream)
    elif read.fenced:
        return _rested(life)  # it was abandoned
    elif answer.is_final:
        carried = answer is Answer.NEVER_BEGAN and run.stream != run.run_id and not run.given_whole
        if answer is Answer.UPDATES_ONLY or carried:
            return _rested(life)  # it cannot be read any more
        return _rested(life, do.Append(f"drained:{run.run}", (reports.drained(run),)))
    return life, (do.DescribeRun(read.run_id, life.deadline),)


def _drop(life: Life, run: Run, unread: Unread, *, whole: bool = False) -> Step:
    """Continue with the next rest; `whole` if this was the stream that the run received."""
    left = tuple([other for other in run.unread if other != unread])
    changes: dict[str, Any] = {"unread": left, **({"given_whole": True} if whole else {})}
    following = left[0] if left else None
    return replace(life, absent=0), (do.Write(changes), do.ReadRest(life.deadline, unread=following))


@rule(
    Phase.RESTING,
    saw.Seen,
    {Phase.RESTING: "Temporal has it, read again later", Phase.DONE: "a later run has its turn"},
)
def _rest_seen(life: Life, now: Now, _: saw.Seen) -> Step:
    return _rest_later(replace(life, absent=0), now)


@rule(Phase.RESTING, saw.NotSeen, {Phase.RESTING: "Temporal cannot say", Phase.DONE: "Temporal does not have it"})
def _rest_not_seen(life: Life, now: Now, seen: saw.NotSeen) -> Step:
    life = replace(life, absent=life.absent + 1 if seen.absent else 0)
    if life.absent < UNKNOWN_TIMES:
        return _rest_later(life, now)
    return _drop(life, now.run, now.run.unread[0]) if now.run.unread else _rested(life)


def _rest_later(life: Life, now: Now) -> Step:
    if life.deadline is None:
        pause = life.pause or _SOONEST
        return replace(life, pause=min(pause * 1.5, _RARELY)), (next_rest(now.run, None, pause),)
    if now.time >= life.deadline:
        return _rested(life, do.Abandon())
    return life, (next_rest(now.run, life.deadline, AGAIN_SECONDS),)


@rule(
    Phase.RESTING, saw.Failed, {Phase.RESTING: "an effect failed, again later", Phase.DONE: "a later run has its turn"}
)
def _rest_failed(life: Life, now: Now, _: saw.Failed) -> Step:
    return _rest_later(life, now)


@rule(Phase.RESTING, saw.LastChance, {Phase.RESTING: "a later run waits", Phase.DONE: "a later run waits for nothing"})
def _last_chance(life: Life, now: Now, _: saw.LastChance) -> Step:
    if life.grace <= 0:
        return _rested(life, do.Abandon())
    life = replace(life, deadline=now.time + life.grace)
    return life, (next_rest(now.run, life.deadline),)


@rule(Phase.RESTING, saw.SessionGone, {Phase.DONE: "the session was closed or deleted"})
def _session_gone(life: Life, _: Now, __: saw.SessionGone) -> Step:
    return replace(life, phase=Phase.DONE), ()


def _rested(life: Life, *effects: do.Effect) -> Step:
    return replace(life, phase=Phase.DONE), (*effects, do.Write({"owed": False}))
