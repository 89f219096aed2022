"""The steps of an input: whatever fails and whoever is killed, one run of the chain gets it, once."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from wakeline.gateway.inputs.steps import (
    Absent,
    Aim,
    At,
    Forgotten,
    Free,
    NotOpen,
    Outcome,
    Place,
    Seen,
    Step,
    StillOpen,
    Unanswered,
    advance,
    begin_at,
    place_after,
)

DELIVERED = Outcome("completed")


class Chain:
    """Temporal: runs that continue as new, and recognise a key within one run.

    Attributes:
        runs: What each run got, oldest first.
        ended: Whether the last run has ended without a successor.
        moves: How often the chain may still go on.
    """

    def __init__(self, moves: int) -> None:
        self.runs: list[int] = [0]
        self.ended = False
        self.moves = moves

    def move(self, *, ends: bool) -> None:
        if self.moves and not self.ended:
            self.moves -= 1
            self.ended = ends
            self.runs += [] if ends else [0]

    def is_open(self, run: int) -> bool:
        return run == len(self.runs) - 1 and not self.ended

    def send(self, run: int) -> Seen:
        if self.runs[run]:  # already signalled with this id
            return DELIVERED
        if not self.is_open(run):
            return NotOpen()
        self.runs[run] += 1
        return DELIVERED

    def look(self, run: int) -> Seen:
        if self.runs[run]:
            return DELIVERED
        if self.is_open(run):
            return StillOpen()
        return Absent(str(run + 1) if run + 1 < len(self.runs) else "")


CHANCES = st.lists(
    st.sampled_from(["well", "lost", "lost after", "killed", "killed after", "continues", "ends", "other gateway"]),
    max_size=40,
)


@given(chances=CHANCES, moves=st.integers(0, 6))
def test_an_input_is_delivered_once_or_rejected(chances: list[str], moves: int) -> None:
    chain = Chain(moves)
    recorded = "0"  # the run in the intent's record
    aims = [Aim(Step.SEND, recorded), Aim(Step.SEND, recorded)]  # of two gateways
    outcome: Outcome | None = None
    turn = 0
    for chance in [*chances, *["well"] * 30]:
        if chance == "other gateway":
            turn = 1 - turn
        elif chance in ("continues", "ends"):
            chain.move(ends=chance == "ends")
        elif chance == "killed":
            aims[turn] = Aim(Step.SEND, recorded, unsure=True)
        else:
            aim = aims[turn]
            seen: Seen = Unanswered()
            if chance != "lost":
                done = chain.send if aim.step is Step.SEND else chain.look
                seen = done(int(aim.run_id)) if chance != "lost after" else (done(int(aim.run_id)), Unanswered())[1]
            if chance == "killed after":
                aims[turn] = Aim(Step.SEND, recorded, unsure=True)
                continue
            after = advance(aim, seen)
            if isinstance(after, Outcome):
                outcome = outcome or after
                break
            recorded = max(recorded, after.run_id, key=int)
            aims[turn] = after
    assert outcome is not None
    assert sum(chain.runs) == (outcome.status == "completed")


@given(unsure=st.booleans(), step=st.sampled_from(Step))
def test_the_run_changes_only_when_a_history_has_shown_that_the_input_is_not_there(unsure: bool, step: Step) -> None:
    aim = Aim(step, "run", unsure)
    for seen in (Unanswered(), NotOpen(), StillOpen()):
        after = advance(aim, seen)
        assert isinstance(after, Aim)
        assert after.run_id == "run"
        assert after.unsure >= unsure
    assert advance(aim, Absent("next")) == Aim(Step.SEND, "next")


def test_a_forgotten_run_may_have_received_what_was_sent_to_it() -> None:
    sure, unsure = (advance(Aim(Step.LOOK, "run", unsure), Forgotten()) for unsure in (False, True))
    assert isinstance(sure, Outcome)
    assert isinstance(unsure, Outcome)
    assert "may have received" not in sure.data["failure"]["message"]
    assert "may have received" in unsure.data["failure"]["message"]


def test_a_call_without_an_answer_is_repeated_at_the_same_run() -> None:
    assert advance(Aim(Step.SEND, "run"), Unanswered()) == Aim(Step.SEND, "run", unsure=True)
    assert advance(Aim(Step.LOOK, "run"), Unanswered()) == Aim(Step.LOOK, "run", unsure=False)


@dataclass
class Begun:
    """A run of a workflow.

    Attributes:
        ours: Whether the input began it.
        got: How often it got the input.
        is_open: Whether it has not ended.
        next: The run that it continued as.
    """

    ours: bool = False
    got: int = 0
    is_open: bool = True
    next: str = ""


class Workflow:
    """Temporal: the runs of one Workflow Id, by chains; run ids are their numbers from 1 on."""

    def __init__(self) -> None:
        self.runs: list[Begun] = []

    def run(self, run_id: str) -> Begun:
        return self.runs[int(run_id) - 1]

    def latest(self) -> str:
        return str(len(self.runs) or "")

    def happens(self, chance: str) -> None:
        latest = self.runs[-1] if self.runs else None
        if chance == "somebody starts" and (latest is None or not latest.is_open):
            self.runs.append(Begun())
        elif chance in ("continues", "ends") and latest is not None and latest.is_open:
            latest.is_open = False
            if chance == "continues":
                self.runs.append(Begun())
                latest.next = self.latest()

    def do(self, aim: Aim) -> Seen:
        match aim.step:
            case Step.FIND:
                return self.find(aim.run_id, unsure=aim.unsure)
            case Step.START:
                return self.start()
            case _:
                return self.send_or_look(aim)

    def send_or_look(self, aim: Aim) -> Seen:
        run = self.run(aim.run_id)
        if run.got or (aim.step is Step.SEND and run.is_open):
            run.got = 1
            return DELIVERED
        if aim.step is Step.SEND:
            return NotOpen()
        return StillOpen() if run.is_open else Absent(run.next)

    def start(self) -> Seen:
        latest = self.runs[-1] if self.runs else None
        if latest is not None and latest.is_open and not latest.ours:
            return Unanswered()  # it is in the way, and has to be found
        if latest is None or not latest.ours:
            self.runs.append(Begun(ours=True, got=1))
        return At(self.latest())

    def find(self, after: str, *, unsure: bool) -> Seen:
        if unsure and self.latest() != after:
            ours = [number for number, run in enumerate(self.runs, 1) if run.ours]
            if ours:
                return At(str(ours[0]))
        return At(self.latest()) if self.runs and self.runs[-1].is_open else Free(self.latest())


EVENTS = st.lists(
    st.sampled_from(
        ["well", "lost", "lost after", "killed after", "continues", "ends", "somebody starts", "other gateway"]
    ),
    max_size=60,
)


@given(chances=EVENTS)
def test_an_input_that_starts_its_workflow_is_delivered_once_and_starts_it_once(chances: list[str]) -> None:
    workflow = Workflow()
    record = Place("")
    # Of two gateways; the first one has accepted the input.
    gateways = [(record, begin_at(record, unsure=False)), (record, begin_at(record))]
    outcome: Outcome | None = None
    turn = 0
    for chance in [*chances, *["well"] * 60]:
        if chance == "other gateway":
            # A gateway that has found nothing starts the workflow at once: the other one gets no whole turn in between.
            turn = turn if gateways[turn][1].step is Step.START else 1 - turn
            continue
        if chance in ("continues", "ends", "somebody starts"):
            workflow.happens(chance)
            continue
        known, aim = gateways[turn]
        seen: Seen = Unanswered() if chance == "lost" else workflow.do(aim)
        if chance == "killed after":
            gateways[turn] = record, begin_at(record)
            continue
        seen = Unanswered() if chance == "lost after" else seen
        after = advance(aim, seen, starts=True)
        place = place_after(known, seen, after)
        if place != known:
            if record != known:
                gateways[turn] = record, begin_at(record)
                continue
            record = place
        if isinstance(after, Outcome):
            outcome = after
            break
        gateways[turn] = place, after
    assert outcome == DELIVERED
    assert sum(run.got for run in workflow.runs) == 1
    assert sum(run.ours for run in workflow.runs) <= 1
