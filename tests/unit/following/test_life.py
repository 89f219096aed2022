"""The rules of a run's life, one row each: what is observed, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest

from wakeline.events import SESSION_SETTLED
from wakeline.gateway.following.life import RULES, begin, reduce
from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life import observations as saw
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.life.phases import Now, Phase
from wakeline.gateway.sessions import Run, Unread
from wakeline.temporal.endings import Ending

AT = datetime(2026, 11, 29, tzinfo=UTC)
GRACE = 10.0
RUN = Run("chat", "one", "one", "one", "Chat", "2026-11-29T00:00:00.000Z")
LATER = msgspec.structs.replace(RUN, run_id="two", earlier=("one",))  # it received the stream
LEFT = msgspec.structs.replace(LATER, unread=(Unread("one", "one", 1),), stream="two")
RESTS = msgspec.structs.replace(RUN, status="terminated", owed=True)
LEFT_RESTS = msgspec.structs.replace(LEFT, status="terminated", owed=True)

COMPLETED = Ending("completed", AT)
TERMINATED = Ending("terminated", AT, reason="enough")
UNKNOWN = Ending("unknown", AT, reason="Temporal no longer knows this run")
CARRIES = Ending(None, AT, "two", "continue_as_new", carries=True)
LEAVES = Ending(None, AT, "two", "continue_as_new", carries=False)
RETRIED = Ending(None, AT, "two", "retry", carries=False, given=3)
RESET = Ending(None, AT, "two", "reset", without_reset="terminated")


def ended(ending: Ending, run_id: str = "one", **how: Any) -> saw.Ended:
    return saw.Ended(run_id, ending, **how)


def read(answer: Answer = Answer.READ, run_id: str = "one", **how: Any) -> saw.Read:
    return saw.Read(run_id, answer, **how)


def nobody(run_id: str = "one", **how: Any) -> saw.Read:
    return read(Answer.NOBODY, run_id, **how)


def first(*, reported: bool = False, **how: Any) -> saw.Standing:
    return saw.Standing(again=False, reported=reported, **how)


def again(**how: Any) -> saw.Standing:
    return saw.Standing(again=True, reported=True, **how)


def told(effect: do.Effect) -> str:
    """An effect in short."""
    match effect:
        case do.Append(publisher, reports):
            return f"append {publisher}: " + ", ".join(
                report.topic
                + ("" if "drained" not in report.data else " drained" if report.data["drained"] else " undrained")
                for report in reports
            )
        case do.Write(changes):
            kept = {
                key: value for key, value in changes.items() if key not in ("waiting", "retrying", "failed", "paused")
            }
            return "write " + ", ".join(
                f"{key}={[each.run_id for each in value] if key == 'unread' else value}" for key, value in kept.items()
            )
        case do.ReadRest(deadline, pause, unread):
            which = "the rest" if unread is None else f"the rest of {unread.run_id}"
            return which + ("" if deadline is None else f" until {deadline:g}") + (f" in {pause:g} s" if pause else "")
        case do.Expect(publisher):
            return f"expect {publisher}"
        case do.PassOver(stream, given):
            return f"pass over {given} of {stream}"
        case do.Supersede(next_run_id, output):
            return f"supersede {'output' if output else 'inputs'} before {next_run_id}"
        case do.ReportStateOf(run_id):
            return f"report the state of {run_id or 'nobody'}"
        case do.AskWorker(run_id) | do.DescribeRun(run_id):
            return f"{type(effect).__name__} {run_id}"
    return type(effect).__name__


class Row(NamedTuple):
    """A rule.

    Attributes:
        run: The record at the beginning.
        seen: The observations, each with its time; the last one is what the rule is about.
        phase: The phase after it.
        effects: The effects of the last observation, in short.
        offset: How far the stream was read.
        grace: Seconds to wait for a worker.
    """

    run: Run
    seen: Sequence[tuple[float, saw.Observation]]
    phase: Phase
    effects: Sequence[str]
    offset: int = 0
    grace: float = GRACE


UNTIL_STRANDED: list[tuple[float, saw.Observation]] = [(0, ended(LEAVES)), (10, nobody())]
CONTINUED = ["expect continued:two", "append continued:two: $run.continued drained"]
UNDRAINED = ["expect continued:two", "append continued:two: $run.continued undrained"]
AS_TWO = "write run_id=two, earlier=('one',), given_whole="
ANEW = ", stream=two, stream_attempt=1"
CLOSE = "expect closed:one"
DRAINED = f"append closed:one: $run.closed drained, {SESSION_SETTLED}"
NOT_DRAINED = f"append closed:one: $run.closed undrained, {SESSION_SETTLED}"

ROWS: dict[str, Row] = {
    "a run that has its turn is announced and followed": Row(
        RUN, [(0, saw.TurnCame())], Phase.FOLLOWING, ["append started:one: $run.started", "Follow"]
    ),
    "after a reset of a chain that had ended, the inputs that the new run lacks are reported": Row(
        msgspec.structs.replace(RUN, chain="zero"),
        [(0, saw.TurnCame())],
        Phase.FOLLOWING,
        ["append started:one: $run.started", "supersede inputs before one", "Follow"],
    ),
    "the rest of an ended run is waited for as long as the grace": Row(
        RUN, [(5, ended(COMPLETED))], Phase.DRAINING, ["the rest until 15"]
    ),
    "a run that was read whole before its end needs no worker": Row(
        RUN, [(0, ended(COMPLETED, read_whole=True))], Phase.CLOSING, ["CheckSession"]
    ),
    "nobody can be asked for the stream of a run that Temporal does not have": Row(
        RUN, [(0, ended(UNKNOWN))], Phase.CLOSING, ["CheckSession"]
    ),
    "a run that Temporal does not have ends without a rest": Row(
        RUN,
        [(0, ended(UNKNOWN)), (0, first())],
        Phase.DONE,
        [CLOSE, NOT_DRAINED, "write status=unknown, owed=False", "Settle"],
    ),
    "a worker that does not answer is asked again": Row(
        RUN, [(0, ended(COMPLETED)), (5, nobody())], Phase.DRAINING, ["the rest until 10 in 1 s"]
    ),
    "a gateway without the key asks again, because a worker with the codec may come": Row(
        RUN, [(0, ended(COMPLETED)), (5, read(Answer.ENCODED))], Phase.DRAINING, ["the rest until 10 in 1 s"]
    ),
    "time for which Temporal has too many calls does not count": Row(
        RUN, [(0, ended(COMPLETED)), (11, nobody(rested=4))], Phase.DRAINING, ["the rest until 14 in 1 s"]
    ),
    "while Temporal has too many calls the grace is not over": Row(
        RUN, [(0, ended(COMPLETED)), (11, nobody(calm=False))], Phase.DRAINING, ["the rest until 10 in 1 s"]
    ),
    "an end is reported after the grace although nobody has answered": Row(
        RUN, [(0, ended(TERMINATED)), (10, nobody())], Phase.CLOSING, ["CheckSession"]
    ),
    "an end without its rest is undrained, and the rest is written down first": Row(
        RUN,
        [(0, ended(TERMINATED)), (10, nobody()), (10, first())],
        Phase.RESTING,
        ["write owed=True", CLOSE, NOT_DRAINED, "write status=terminated, owed=True", "Settle"],
    ),
    "an end with everything is drained": Row(
        RUN,
        [(0, ended(COMPLETED)), (1, read()), (1, first())],
        Phase.DONE,
        [CLOSE, DRAINED, "write status=completed, owed=False", "Settle"],
    ),
    "a workflow that hosts no stream has nothing left": Row(
        RUN,
        [(0, ended(COMPLETED)), (1, read(Answer.NO_STREAM)), (1, first())],
        Phase.DONE,
        [CLOSE, DRAINED, "write status=completed, owed=False", "Settle"],
    ),
    "the last events of a host that is read by update cannot be read": Row(
        RUN,
        [(0, ended(COMPLETED)), (1, read(Answer.UPDATES_ONLY)), (1, first())],
        Phase.RESTING,
        ["write owed=True", CLOSE, NOT_DRAINED, "write status=completed, owed=True", "Settle"],
    ),
    "a run that never began has published nothing": Row(
        RUN,
        [(0, ended(TERMINATED)), (1, read(Answer.NEVER_BEGAN)), (1, first())],
        Phase.DONE,
        [CLOSE, DRAINED, "write status=terminated, owed=False", "Settle"],
    ),
    "of a run that never began, the stream that it received is left to be read from the run before it": Row(
        LATER,
        [(0, ended(TERMINATED, "two")), (1, read(Answer.NEVER_BEGAN, "two"))],
        Phase.CLOSING,
        ["write unread=['one']", "CheckSession"],
    ),
    "a run that never began has ended undrained if the stream that it received was not read": Row(
        msgspec.structs.replace(LATER, unread=(Unread("one", "one", 1),)),
        [(0, ended(TERMINATED, "two")), (1, read(Answer.NEVER_BEGAN, "two")), (1, first())],
        Phase.RESTING,
        ["write owed=True", CLOSE, NOT_DRAINED, "write status=terminated, owed=True", "Settle"],
    ),
    "a run that never began has everything if the stream that it received was read": Row(
        msgspec.structs.replace(LATER, given_whole=True),
        [(0, ended(TERMINATED, "two")), (1, read(Answer.NEVER_BEGAN, "two")), (1, first())],
        Phase.DONE,
        [CLOSE, DRAINED, "write status=terminated, owed=False", "Settle"],
    ),
    "in a closed session only the record learns of the end": Row(
        RUN,
        [
            (0, ended(COMPLETED)),
            (1, read(Answer.SESSION_CLOSED)),
            (1, first(others=1, all_ended=False)),
            (1, saw.Standing(again=True, reported=False, others=1, all_ended=False)),
        ],
        Phase.RESTING,
        ["write status=completed, owed=True"],
    ),
    "a chain that continues as new keeps its stream": Row(
        RUN, [(0, ended(CARRIES)), (1, read())], Phase.FOLLOWING, [*CONTINUED, AS_TWO + "True", "Follow"]
    ),
    "a run that continues without its stream begins another one": Row(
        RUN,
        [(0, ended(LEAVES)), (1, read())],
        Phase.FOLLOWING,
        [*CONTINUED, "pass over 0 of two", AS_TWO + "True" + ANEW, "Follow"],
    ),
    "a retry that received an earlier stream does not repeat it": Row(
        RUN,
        [(0, ended(RETRIED)), (1, read())],
        Phase.FOLLOWING,
        [*CONTINUED, "pass over 3 of two", AS_TWO + "True" + ANEW, "Follow"],
    ),
    "the states of a Temporal run are over when another one continues from it": Row(
        msgspec.structs.replace(RUN, waiting={"for": "input"}, retrying={"7": 2}),
        [(0, ended(CARRIES, read_whole=True))],
        Phase.FOLLOWING,
        [
            "expect continued:two",
            "append continued:two: $run.continued drained, $run.waiting, $activity.retrying",
            AS_TWO + "True",
            "Follow",
        ],
    ),
    "a reset begins another attempt at the stream": Row(
        RUN,
        [(0, ended(RESET)), (1, read())],
        Phase.FOLLOWING,
        [
            *CONTINUED,
            "supersede output before two",
            "write run_id=two, earlier=('one',), given_whole=True, stream_attempt=2, reset_streams={'two': 'one'}",
            "Follow",
        ],
    ),
    "a later reset finds the streams of runs that earlier ones began, also after more streams have begun": Row(
        msgspec.structs.replace(RUN, run_id="third", stream="third", reset_streams={"again": "one"}),
        [(0, ended(RESET, "third")), (1, read(run_id="third"))],
        Phase.FOLLOWING,
        [
            *CONTINUED,
            "supersede output before two",
            "write run_id=two, earlier=('third',), given_whole=True, stream_attempt=2, "
            "reset_streams={'again': 'one', 'two': 'third'}",
            "Follow",
        ],
    ),
    "of the runs that resets have begun with one stream, the last one is noted": Row(
        msgspec.structs.replace(RUN, run_id="again", stream_attempt=2, reset_streams={"again": "one"}),
        [(0, ended(RESET, "again")), (1, read(run_id="again"))],
        Phase.FOLLOWING,
        [
            *CONTINUED,
            "supersede output before two",
            "write run_id=two, earlier=('again',), given_whole=True, stream_attempt=3, reset_streams={'two': 'one'}",
            "Follow",
        ],
    ),
    "a run that was reset is waited for no longer than any end": Row(
        RUN,
        [(0, ended(RESET)), (10, nobody())],
        Phase.FOLLOWING,
        [
            *UNDRAINED,
            "supersede output before two",
            "write run_id=two, earlier=('one',), given_whole=False, stream_attempt=2, reset_streams={'two': 'one'}",
            "Follow",
        ],
    ),
    "a reset of a chain whose end is in the log is not this run's": Row(
        RUN, [(0, ended(RESET, reported=True)), (1, read())], Phase.CLOSING, ["CheckSession"]
    ),
    "without a worker, a chain that continues is checked for its end": Row(
        RUN, UNTIL_STRANDED, Phase.STRANDED, ["DescribeChain"]
    ),
    "while the chain runs, its latest run is asked whether a worker is there": Row(
        RUN, [*UNTIL_STRANDED, (10, saw.ChainSeen(over=False, latest="three"))], Phase.STRANDED, ["AskWorker three"]
    ),
    "while no worker is there, the latest run's state is reported": Row(
        RUN,
        [*UNTIL_STRANDED, (10, saw.ChainSeen(over=False, latest="three")), (12, saw.WorkerSeen(present=False))],
        Phase.STRANDED,
        ["report the state of three", "the rest until 22"],
    ),
    "the state of the same run is not reported twice": Row(
        RUN,
        [
            *UNTIL_STRANDED,
            (10, saw.ChainSeen(over=False, latest="three")),
            (12, saw.WorkerSeen(present=False)),
            (22, nobody()),
            (22, saw.ChainSeen(over=False, latest="three")),
            (24, saw.WorkerSeen(present=False)),
        ],
        Phase.STRANDED,
        ["the rest until 34"],
    ),
    "a worker that came back reads the rest before the chain continues": Row(
        RUN,
        [
            *UNTIL_STRANDED,
            (10, saw.ChainSeen(over=False, latest="two")),
            (12, saw.WorkerSeen(present=False)),
            (15, read()),
        ],
        Phase.FOLLOWING,
        ["report the state of nobody", *CONTINUED, "pass over 0 of two", AS_TWO + "True" + ANEW, "Follow"],
    ),
    "a worker that is there gets one more grace to replay the run": Row(
        RUN,
        [*UNTIL_STRANDED, (10, saw.ChainSeen(over=False, latest="two")), (12, saw.WorkerSeen(present=True))],
        Phase.DRAINING,
        ["the rest until 22"],
    ),
    "the rest of a run that a worker cannot replay is lost": Row(
        RUN,
        [
            *UNTIL_STRANDED,
            (10, saw.ChainSeen(over=False, latest="two")),
            (12, saw.WorkerSeen(present=True)),
            (22, nobody()),
        ],
        Phase.FOLLOWING,
        [*UNDRAINED, "pass over 0 of two", AS_TWO + "False" + ANEW, "Follow"],
    ),
    "after a run that could not be read the next one is not waited for as long": Row(
        RUN,
        [
            *UNTIL_STRANDED,
            (10, saw.ChainSeen(over=False, latest="two")),
            (12, saw.WorkerSeen(present=True)),
            (22, nobody()),
            (30, ended(Ending(None, AT, "three", "retry", carries=False), "two")),
        ],
        Phase.DRAINING,
        ["the rest until 31"],
    ),
    "if the chain has ended without a worker, its end comes first and the rest is read later": Row(
        RUN,
        [*UNTIL_STRANDED, (10, saw.ChainSeen(over=True, latest="two"))],
        Phase.FOLLOWING,
        ["write unread=['one']", *UNDRAINED, "pass over 0 of two", AS_TWO + "False" + ANEW, "Follow"],
    ),
    "a run that passed its stream on is not read later, because the next one has it": Row(
        RUN,
        [(0, ended(CARRIES)), (10, nobody()), (10, saw.ChainSeen(over=True, latest="two"))],
        Phase.FOLLOWING,
        ["expect continued:two", "append continued:two: $run.continued drained", AS_TWO + "False", "Follow"],
    ),
    "a run whose successor received more of the stream than was read is not read later": Row(
        RUN,
        [(0, ended(RETRIED)), (10, nobody()), (10, saw.ChainSeen(over=True, latest="two"))],
        Phase.FOLLOWING,
        [*UNDRAINED, "pass over 3 of two", AS_TWO + "False" + ANEW, "Follow"],
        offset=2,
    ),
    "one answer that Temporal does not have the workflow is not believed": Row(
        RUN, [*UNTIL_STRANDED, (10, saw.NotSeen(absent=True))], Phase.STRANDED, ["AskWorker two"]
    ),
    "three answers in a row that Temporal does not have the workflow are believed": Row(
        RUN,
        [
            *UNTIL_STRANDED,
            (10, saw.NotSeen(absent=True)),
            (12, saw.WorkerSeen(present=False)),
            (22, nobody()),
            (22, saw.NotSeen(absent=True)),
            (24, saw.WorkerSeen(present=False)),
            (34, nobody()),
            (34, saw.NotSeen(absent=True)),
        ],
        Phase.FOLLOWING,
        [
            "report the state of nobody",
            "write unread=['one']",
            *UNDRAINED,
            "pass over 0 of two",
            AS_TWO + "False" + ANEW,
            "Follow",
        ],
    ),
    "a run that was read after all is not read later": Row(
        msgspec.structs.replace(LEFT, run_id="one", stream="one"),
        [(0, ended(LEAVES)), (1, read())],
        Phase.FOLLOWING,
        [
            "write unread=[]",
            *CONTINUED,
            "pass over 0 of two",
            "write run_id=two, earlier=('one', 'one'), given_whole=True" + ANEW,
            "Follow",
        ],
    ),
    "an end is undrained while the rest of an earlier Temporal run is not read": Row(
        LEFT,
        [(0, ended(TERMINATED, "two")), (1, read(run_id="two")), (1, first())],
        Phase.RESTING,
        ["write owed=True", CLOSE, NOT_DRAINED, "write status=terminated, owed=True", "Settle"],
    ),
    "an end does not settle the session while another run is open": Row(
        RUN,
        [(0, ended(COMPLETED)), (1, read()), (1, first(others=1, all_ended=False))],
        Phase.CLOSING,
        [CLOSE, "append closed:one: $run.closed drained", "CheckSession"],
    ),
    "another run that is still open settles the session at its own end": Row(
        RUN,
        [
            (0, ended(COMPLETED)),
            (1, read()),
            (1, first(others=1, all_ended=False)),
            (1, again(others=1, all_ended=False)),
        ],
        Phase.DONE,
        ["write status=completed, owed=False"],
    ),
    "runs that end at once settle the session under the name of the last end": Row(
        RUN,
        [(0, ended(COMPLETED)), (1, read()), (1, first(others=1, all_ended=False)), (1, again(others=1, last=7))],
        Phase.DONE,
        [f"append closed:at-7: {SESSION_SETTLED}", "write status=completed, owed=False"],
    ),
    "a session that is settled is not settled twice": Row(
        RUN,
        [(0, ended(COMPLETED)), (1, read()), (1, first(others=1, all_ended=False)), (1, again(others=1))],
        Phase.DONE,
        ["write status=completed, owed=False"],
    ),
    "after a kill between $run.closed and its record, only the record is written": Row(
        RUN,
        [(0, ended(COMPLETED)), (1, read()), (1, first(reported=True)), (1, again())],
        Phase.DONE,
        ["write status=completed, owed=False", "Settle"],
    ),
    "after a kill behind an undrained end, the rest is still to be read": Row(
        msgspec.structs.replace(RUN, owed=True),
        [(0, ended(COMPLETED)), (1, read()), (1, first(reported=True)), (1, again())],
        Phase.RESTING,
        ["write status=completed, owed=True", "Settle"],
    ),
    "after a kill before an undrained end, an end that can be drained by now is": Row(
        msgspec.structs.replace(RUN, owed=True),
        [(0, ended(COMPLETED)), (1, read()), (1, first())],
        Phase.DONE,
        ["write owed=False", CLOSE, DRAINED, "write status=completed, owed=False", "Settle"],
    ),
    "a worker that is back adds the rest, and that is reported once": Row(
        RESTS, [(0, read())], Phase.DONE, ["append drained:one: $run.drained", "write owed=False"]
    ),
    "a workflow without a stream is drained by the first worker that says so": Row(
        RESTS, [(0, read(Answer.NO_STREAM))], Phase.DONE, ["append drained:one: $run.drained", "write owed=False"]
    ),
    "a rest that only updates could read is abandoned": Row(
        RESTS, [(0, read(Answer.UPDATES_ONLY))], Phase.DONE, ["write owed=False"]
    ),
    "the stream that a run received and never read was read from the run before it": Row(
        msgspec.structs.replace(RESTS, run_id="two", unread=(Unread("one", "one", 1),)),
        [(0, read())],
        Phase.RESTING,
        ["write unread=[], given_whole=True", "the rest"],
    ),
    "a run that never began is drained once the stream that it received was read": Row(
        msgspec.structs.replace(RESTS, run_id="two", given_whole=True),
        [(0, read(Answer.NEVER_BEGAN, "two"))],
        Phase.DONE,
        ["append drained:one: $run.drained", "write owed=False"],
    ),
    "a stream that was received by a run that never began is abandoned if nobody else has it": Row(
        msgspec.structs.replace(RESTS, run_id="two"),
        [(0, read(Answer.NEVER_BEGAN, "two"))],
        Phase.DONE,
        ["write owed=False"],
    ),
    "a rest that was abandoned meanwhile is not read again": Row(
        RESTS, [(0, nobody(fenced=True))], Phase.DONE, ["write owed=False"]
    ),
    "a rest without a worker is checked in Temporal": Row(RESTS, [(0, nobody())], Phase.RESTING, ["DescribeRun one"]),
    "a rest that Temporal still has is read again later": Row(
        RESTS, [(0, nobody()), (0, saw.Seen())], Phase.RESTING, ["the rest in 2 s"]
    ),
    "the pauses between attempts at a rest grow": Row(
        RESTS, [(0, nobody()), (0, saw.Seen()), (2, nobody()), (2, saw.Seen())], Phase.RESTING, ["the rest in 3 s"]
    ),
    "an outage says nothing of a rest": Row(
        RESTS, [(0, nobody()), (0, saw.NotSeen(absent=False))], Phase.RESTING, ["the rest in 2 s"]
    ),
    "a rest that Temporal does not have any more is abandoned": Row(
        RESTS,
        [
            (0, nobody()),
            (0, saw.NotSeen(absent=True)),
            (2, nobody()),
            (2, saw.NotSeen(absent=True)),
            (5, nobody()),
            (5, saw.NotSeen(absent=True)),
        ],
        Phase.DONE,
        ["write owed=False"],
    ),
    "the rest of an earlier Temporal run comes first": Row(
        LEFT_RESTS, [(0, read())], Phase.RESTING, ["write unread=[]", "the rest"]
    ),
    "an earlier Temporal run that a reset has undone is passed over": Row(
        LEFT_RESTS, [(0, nobody(fenced=True))], Phase.RESTING, ["write unread=[]", "the rest"]
    ),
    "an earlier Temporal run that Temporal does not have is passed over": Row(
        LEFT_RESTS,
        [
            (0, nobody()),
            (0, saw.NotSeen(absent=True)),
            (2, nobody()),
            (2, saw.NotSeen(absent=True)),
            (5, nobody()),
            (5, saw.NotSeen(absent=True)),
        ],
        Phase.RESTING,
        ["write unread=[]", "the rest"],
    ),
    "an effect on a rest that has failed is tried again later": Row(
        RESTS, [(0, saw.Failed())], Phase.RESTING, ["the rest in 2 s"]
    ),
    "an effect that fails until a later run has its turn abandons the rest": Row(
        RESTS, [(5, saw.LastChance()), (15, saw.Failed())], Phase.DONE, ["Abandon", "write owed=False"]
    ),
    "a rest of which Temporal cannot say anything is abandoned when a later run has its turn": Row(
        RESTS,
        [(5, saw.LastChance()), (15, nobody()), (15, saw.NotSeen(absent=False))],
        Phase.DONE,
        ["Abandon", "write owed=False"],
    ),
    "no rest is waited for without a grace": Row(
        RESTS, [(5, saw.LastChance())], Phase.DONE, ["Abandon", "write owed=False"], grace=0.0
    ),
    "a later run of the session waits for a rest as long as for an end": Row(
        RESTS, [(5, saw.LastChance())], Phase.RESTING, ["the rest until 15"]
    ),
    "until then the rest is tried again every second": Row(
        RESTS, [(5, saw.LastChance()), (7, nobody()), (8, saw.Seen())], Phase.RESTING, ["the rest until 15 in 1 s"]
    ),
    "after that the rest is abandoned": Row(
        RESTS, [(5, saw.LastChance()), (15, nobody()), (15, saw.Seen())], Phase.DONE, ["Abandon", "write owed=False"]
    ),
    "nothing can be added to a session that is gone": Row(RESTS, [(0, saw.SessionGone())], Phase.DONE, []),
    "an end that is observed twice is one end": Row(
        RUN, [(0, ended(COMPLETED)), (0, ended(COMPLETED))], Phase.DRAINING, []
    ),
    "an answer for the Temporal run before does not count for the next": Row(
        RUN, [(0, ended(CARRIES)), (1, read()), (2, ended(TERMINATED, "two")), (2, read())], Phase.DRAINING, []
    ),
    "a check of the session from before the end was appended does not count": Row(
        RUN,
        [
            (0, ended(COMPLETED)),
            (1, read()),
            (1, first(others=1, all_ended=False)),
            (1, first(others=1, all_ended=False)),
        ],
        Phase.CLOSING,
        [],
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_rule(row: Row) -> None:
    run = row.run
    life, effects = begin(run, row.grace, started=not isinstance(row.seen[0][1], saw.TurnCame))
    for time, observation in row.seen:
        for effect in effects:  # what was asked for before the last observation is in the record
            if isinstance(effect, do.Write):
                run = msgspec.structs.replace(run, **effect.changes)
        life, effects = reduce(life, Now(observation, run, float(time), row.offset))
    assert (life.phase, [told(effect) for effect in effects]) == (row.phase, row.effects)


def test_a_run_whose_end_is_recorded_with_everything_has_nothing_left_to_do() -> None:
    life, effects = begin(msgspec.structs.replace(RUN, status="completed"), GRACE, started=True)
    assert (life.phase, effects) == (Phase.DONE, ())


def test_each_rule_of_the_table_has_a_row() -> None:
    covered: set[tuple[Phase, type, Phase]] = set()
    for row in ROWS.values():
        run = row.run
        life, effects = begin(run, row.grace, started=not isinstance(row.seen[0][1], saw.TurnCame))
        for time, observation in row.seen:
            for effect in effects:
                if isinstance(effect, do.Write):
                    run = msgspec.structs.replace(run, **effect.changes)
            before = life.phase
            life, effects = reduce(life, Now(observation, run, float(time), row.offset))
            covered.add((before, type(observation), life.phase))
    table = {(phase, seen, lead) for (phase, seen), rule in RULES.items() for lead in rule.leads}
    assert {(phase, seen, lead) for phase, seen, lead in covered if (phase, seen) in RULES} <= table
    assert table - covered == set()
