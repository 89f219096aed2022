"""The rules of a run's life: from an observation to the next phase and the effects.

It is pure: it has no client, clock or task, and time comes in with the observation. The effects of one step are executed
in their order, and the last one asks for the next observation. A crash between any two of them is harmless: the run's
record is written after its events, so the same observation has the same effects again, and the log keeps one copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life import observations as saw
from wakeline.gateway.following.life import reports
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.life.phases import AGAIN_SECONDS, RULES, Life, Now, Phase, Step, rule
from wakeline.gateway.following.life.resting import next_rest
from wakeline.gateway.sessions import Run, Unread
from wakeline.temporal.endings import Ending
from wakeline.temporal.failures import UNKNOWN_TIMES

# Activities of that many Temporal runs before the latest may still publish.
_EARLIER: Final = 10
_STATELESS: Final[Mapping[str, Any]] = {"waiting": None, "retrying": {}, "failed": {}, "paused": {}}


def begin(run: Run, grace: float, *, started: bool) -> Step:
    """Return the first step for a run, as its record and the log have it.

    Args:
        run: The run.
        grace: Seconds to wait for a worker at an end.
        started: Whether the log has its `$run.started`.
    """
    if not run.open:
        return (Life(Phase.RESTING, grace), (next_rest(run, None),)) if run.owed else (Life(Phase.DONE, grace), ())
    life = Life(Phase.WAITING, grace)
    return _take_turn(life, run) if started else (life, (do.AwaitTurn(),))


def reduce(life: Life, now: Now) -> Step:
    """Return the run's life after an observation, and the effects to execute.

    An observation that the phase does not wait for changes nothing: it came twice, or late.
    """
    found = RULES.get((life.phase, type(now.observation)))
    return (life, ()) if found is None else found.apply(life, now, now.observation)


@rule(Phase.WAITING, saw.TurnCame, {Phase.FOLLOWING: "no earlier run can add events ($run.started)"})
def _turn_came(life: Life, now: Now, _: saw.TurnCame) -> Step:
    return _take_turn(life, now.run)


def _take_turn(life: Life, run: Run) -> Step:
    announce = do.Append(f"started:{run.run}", (reports.started(run),))
    # A chain that had ended and was reset lacks the inputs after the reset point.
    undo = (do.Supersede(run.run, output=False),) if run.chain else ()
    return replace(life, phase=Phase.FOLLOWING), (announce, *undo, do.Follow())


@rule(
    Phase.FOLLOWING,
    saw.Ended,
    {
        Phase.DRAINING: "the Temporal run has ended",
        Phase.FOLLOWING: "read whole, and the chain continues ($run.continued)",
        Phase.CLOSING: "read whole, or Temporal does not have the run",
    },
)
def _ended(life: Life, now: Now, seen: saw.Ended) -> Step:
    ending = seen.ending
    if seen.run_id != now.run.run_id:
        return life, ()
    if ending.follows_by == "reset" and seen.reported:
        # The record does not have that end yet. The run that continues from it is another one.
        ending = replace(ending, status=ending.without_reset)
    life = replace(life, ending=ending, worker_seen=False, latest="", reported="", absent=0, appended=False)
    if ending.status == "unknown":
        return _leave(life, now, False)  # nobody can be asked for its stream
    if seen.read_whole:
        return _leave(life, now, True)
    # After a run that could not be read in time, the next one is not waited for as long.
    patience = AGAIN_SECONDS if _goes_on(ending) and life.unheard else life.grace
    life = replace(life, phase=Phase.DRAINING, patience=patience, deadline=now.time + patience)
    return life, (do.ReadRest(life.deadline),)


@rule(
    Phase.DRAINING,
    saw.Read,
    {
        Phase.DRAINING: "no answer yet",
        Phase.STRANDED: "no answer in time, and the chain continues",
        Phase.FOLLOWING: "read or abandoned, and the chain continues ($run.continued)",
        Phase.CLOSING: "read, or no answer in time",
    },
)
@rule(
    Phase.STRANDED,
    saw.Read,
    {Phase.STRANDED: "no answer yet", Phase.FOLLOWING: "read ($run.continued)"},
)
def _after_read(life: Life, now: Now, read: saw.Read) -> Step:
    if read.run_id != now.run.run_id:
        return life, ()
    run, ending, drained = now.run, life.ending, _conclusion(read.answer, now.run)
    assert ending is not None
    if read.answer is Answer.NEVER_BEGAN and not drained and ending.status is not None and run.earlier:
        # The stream that it received and that was not read to its end is with the run before it, once a worker is back.
        return _leave(life, now, False, unread=_later(run, run.earlier[-1]))
    if drained is not None:
        return _leave(life, now, drained)
    assert life.deadline is not None
    # A worker cannot help while Temporal has too many calls: that time does not count.
    deadline = life.deadline + read.rested
    life = replace(life, deadline=deadline)
    if now.time + AGAIN_SECONDS <= deadline or not read.calm:
        return life, (do.ReadRest(deadline, AGAIN_SECONDS),)
    if not _goes_on(ending) or life.worker_seen:
        return _leave(life, now, None)
    # This run's output comes before that of the next one: wait for a worker, or for the chain's end.
    return replace(life, phase=Phase.STRANDED, patience=max(life.patience, AGAIN_SECONDS)), (do.DescribeChain(),)


def _conclusion(answer: Answer, run: Run) -> bool | None:
    """Return whether an answer means that everything was read; None if it means nothing yet."""
    if answer is Answer.NEVER_BEGAN:
        # It has published nothing, and cannot be asked for a stream that it received.
        return run.stream == run.run_id or run.given_whole
    if answer in (Answer.READ, Answer.NO_STREAM):
        return True
    return False if answer.is_final else None


@rule(
    Phase.STRANDED,
    saw.ChainSeen,
    {Phase.STRANDED: "the chain runs", Phase.FOLLOWING: "the chain has ended, the rest later ($run.continued)"},
)
def _chain_seen(life: Life, now: Now, seen: saw.ChainSeen) -> Step:
    return _stranded(replace(life, absent=0, latest=seen.latest), now, over=seen.over)


@rule(
    Phase.STRANDED,
    saw.NotSeen,
    {Phase.STRANDED: "Temporal cannot say", Phase.FOLLOWING: "Temporal does not have it ($run.continued)"},
)
def _chain_not_seen(life: Life, now: Now, seen: saw.NotSeen) -> Step:
    life = replace(life, absent=life.absent + 1 if seen.absent else 0)
    return _stranded(life, now, over=life.absent >= UNKNOWN_TIMES)


def _stranded(life: Life, now: Now, *, over: bool) -> Step:
    run, ending = now.run, life.ending
    assert ending is not None
    if not over:
        life = replace(life, latest=life.latest or ending.next_run_id)
        return life, (do.AskWorker(life.latest),)
    # The chain's end is reported first, and the rest of this run later. Not if the next run received its stream: that run
    # has it all. Once that stream was read further than this one's end, this one would have to be read from its beginning.
    if ending.carries is False and ending.given <= now.offset:
        return _leave(life, now, None, unread=_later(run, run.run_id))
    return _leave(life, now, None)


def _later(run: Run, run_id: str) -> tuple[Unread, ...]:
    """Return the runs that are to be read later, with another one of the present stream."""
    unread = Unread(run_id, run.stream, run.stream_attempt)
    return (*[other for other in run.unread if other != unread], unread)


@rule(
    Phase.STRANDED,
    saw.WorkerSeen,
    {Phase.STRANDED: "no worker is there", Phase.DRAINING: "a worker is there, one more attempt"},
)
def _worker_seen(life: Life, now: Now, seen: saw.WorkerSeen) -> Step:
    life = replace(life, deadline=now.time + life.patience)
    if seen.present:
        return replace(life, phase=Phase.DRAINING, worker_seen=True), (do.ReadRest(life.deadline),)
    if life.latest == life.reported:
        return life, (do.ReadRest(life.deadline),)
    return replace(life, reported=life.latest), (do.ReportStateOf(life.latest), do.ReadRest(life.deadline))


def _leave(life: Life, now: Now, drained: bool | None, *, unread: tuple[Unread, ...] | None = None) -> Step:
    """Continue with the chain's next Temporal run, or close the run."""
    run, ending = now.run, life.ending
    assert ending is not None
    effects: list[do.Effect] = [do.ReportStateOf("")] if life.reported else []
    if drained:
        # A crash may have left it noted as to be read later.
        unread = tuple([other for other in run.unread if other.run_id != run.run_id])
    if unread is not None and unread != run.unread:
        effects.append(do.Write({"unread": unread}))
    life = replace(life, drained=drained is True, unheard=drained is None)
    if ending.status is not None:
        return replace(life, phase=Phase.CLOSING), (*effects, do.CheckSession())
    return replace(life, phase=Phase.FOLLOWING, ending=None), (*effects, *_continue(life, run, ending), do.Follow())


def _continue(life: Life, run: Run, ending: Ending) -> list[do.Effect]:
    """Report what a run continues as. Only continue-as-new can carry the stream over."""
    name = f"continued:{ending.next_run_id}"
    changes: dict[str, Any] = {
        "run_id": ending.next_run_id,
        "earlier": (*run.earlier, run.run_id)[-_EARLIER:],
        "given_whole": life.drained,
        **_STATELESS,
    }
    continued = (reports.continued(run, ending, drained=life.drained), *reports.over(run))
    effects: list[do.Effect] = [do.Expect(name, dict(changes)), do.Append(name, continued)]
    if ending.follows_by == "reset":
        # The new run builds its stream from what is left of the history: earlier output is published again, or void.
        effects.append(do.Supersede(ending.next_run_id))
        changes["stream_attempt"] = run.stream_attempt + 1
        # It keeps the stream's name, whichever run the reset went back to. A later reset may have to find the stream by it.
        others = [(of, stream) for of, stream in run.reset_streams.items() if stream != run.stream]
        changes["reset_streams"] = dict([*others, (ending.next_run_id, run.stream)][-_EARLIER:])
    elif ending.carries is False:
        effects.append(do.PassOver(ending.next_run_id, ending.given))
        changes |= {"stream": ending.next_run_id, "stream_attempt": 1}
    return [*effects, do.Write(changes)]


def _goes_on(ending: Ending) -> bool:
    """Return whether the chain continues after this run's output; a reset makes that void."""
    return ending.status is None and ending.follows_by != "reset"


@rule(
    Phase.CLOSING,
    saw.Standing,
    {
        Phase.CLOSING: "$run.closed, while other runs are open, check again",
        Phase.RESTING: "$run.closed, drained false",
        Phase.DONE: "$run.closed, drained true",
    },
)
def _standing(life: Life, now: Now, seen: saw.Standing) -> Step:
    run, ending = now.run, life.ending
    assert ending is not None
    name = f"closed:{run.run}"
    if seen.again != life.appended:
        return life, ()  # observed before the end was appended
    if life.appended:
        # Several runs may have ended at once, each before it saw the others. Whichever gateway sees that all have ended
        # names the event by the end that came last, so that the log has it once.
        settled = seen.all_ended and seen.last is not None
        return _closed(life, seen, [do.Append(f"closed:at-{seen.last}", (reports.SETTLED,))] if settled else [])
    drained = life.drained and not run.unread
    # A report that the log has still holds, whatever could be read now.
    owed = run.owed if seen.reported else not drained and ending.status != "unknown"
    life = replace(life, appended=True, owed=owed)
    # Before the end: after a kill the record alone says whether a reported end was drained.
    effects: list[do.Effect] = [do.Write({"owed": owed})] if owed != run.owed else []
    effects.append(do.Expect(name, {"status": ending.status, "owed": owed, **_STATELESS}))
    if not seen.reported:
        closed = reports.closed(run, ending, seen.details, drained=drained)
        effects.append(do.Append(name, (closed, reports.SETTLED) if seen.all_ended else (closed,)))
        if seen.all_ended:
            return _closed(life, seen, effects)
    return life, (*effects, do.CheckSession(again=True))


def _closed(life: Life, seen: saw.Standing, effects: list[do.Effect]) -> Step:
    assert life.ending is not None
    effects.append(do.Write({"status": life.ending.status, "owed": life.owed, **_STATELESS}))
    if not seen.others:
        effects.append(do.Settle())
    return replace(life, phase=Phase.RESTING if life.owed else Phase.DONE), tuple(effects)
