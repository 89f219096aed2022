"""Lives of several runs in one session against a model of Temporal and the log, in random order.

Gateways are killed between any two effects, observations come twice, and workers and Temporal come and go. Chains are
continued, retried, reset, ended before they began, and forgotten by Temporal.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.soak import times
from tests.unit.following.modelled import AT, ITEM, Chain, FencedError, Gateway, Log, TemporalRun
from wakeline.events import RUN_CLOSED, RUN_CONTINUED, RUN_DRAINED, RUN_STARTED, SESSION_SETTLED
from wakeline.gateway.following.life import begin, reduce
from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life import observations as saw
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.life.phases import Life, Now, Phase
from wakeline.gateway.sessions import Run
from wakeline.temporal.endings import Ending

GRACE = 5.0
ACTORS = st.integers(0, 3)
MOST_CHAINS = 5
# What a machine is at one moment, and the steps after which all gateways are killed in its replays.
KEPT = ("log", "time", "count", "chains", "gateways", "lost", "late", "forgotten")
KILLS = (None, 1, 2, 3, 5, 8, 13, 21)


def number(name: str) -> int:
    return int(name.removeprefix("run-"))


class Lives(RuleBasedStateMachine):
    """Two workflows in one session, of which the first may be started again."""

    def __init__(self) -> None:
        super().__init__()
        self.log, self.time, self.count = Log(), 0.0, 0
        self.worker, self.temporal = True, True
        self.chains: list[Chain] = []
        self.gateways: dict[str, Gateway] = {}
        self.lost: set[str] = set()  # runs of which a worker could not replay a part, or whose rest was abandoned
        self.late: set[str] = set()  # runs of which a part comes after the end of their chain
        self.forgotten: set[str] = set()  # runs of which Temporal no longer has a part

    @initialize()
    def two_workflows(self) -> None:
        self._start("a")
        self._start("b")

    def _name(self) -> str:
        self.count += 1
        return f"run-{self.count}"

    def _start(self, workflow_id: str) -> None:
        self._enter(Chain(workflow_id, [TemporalRun(self._name(), [])]))

    def _enter(self, chain: Chain, *, of: str = "") -> None:
        self.chains.append(chain)
        name = chain.name
        started_at = (AT + timedelta(seconds=number(name))).isoformat()
        if any(run.gone for run in chain.runs):
            self.forgotten.add(name)
        self.log.records[name] = Run(chain.workflow_id, name, name, name, "Chat", started_at, chain=of)
        self._revive(name)

    def _chain(self, run: str) -> Chain:
        (found,) = [chain for chain in self.chains if chain.name == run]
        return found

    def _temporal_run(self, run_id: str) -> TemporalRun:
        (found,) = [run for chain in self.chains for run in chain.runs if run.run_id == run_id]
        return found

    def _at(self, which: int) -> Chain:
        return self.chains[which % len(self.chains)]

    def _revive(self, run: str) -> None:
        record = self.log.records[run]
        self.gateways.pop(run, None)
        if record.open or record.owed:
            life, effects = begin(record, GRACE, started=f"started:{run}" in self.log.positions)
            self.gateways[run] = Gateway(life, list(effects))

    # What happens in Temporal.

    @rule(which=ACTORS)
    def publish(self, which: int) -> None:
        latest = self._at(which).latest
        if not latest.over and self.worker:
            latest.began = True
            latest.stream.append(self._name())

    @rule(which=ACTORS, how=st.sampled_from(["carries", "leaves", "retry", "cron"]))
    def go_on(self, which: int, how: str) -> None:
        latest = (chain := self._at(which)).latest
        if latest.over or not (self.worker and self.temporal):
            return
        latest.began = True
        given = latest.given if how in ("retry", "cron") else 0
        kept = len(latest.stream) if how == "carries" else given
        follows = TemporalRun(self._name(), latest.stream[:kept], kept, latest.run_id)
        follows.carried = how == "carries"
        follows_by: Any = how if how in ("retry", "cron") else "continue_as_new"
        latest.ending = Ending(None, AT, follows.run_id, follows_by, carries=how == "carries", given=given)
        chain.runs.append(follows)

    @rule(which=ACTORS, status=st.sampled_from(["completed", "terminated"]))
    def end(self, which: int, status: Any) -> None:
        """A run that is terminated may not have begun."""
        latest = self._at(which).latest
        if not latest.over and self.temporal and (self.worker or status == "terminated"):
            latest.began |= status == "completed"
            latest.ending = Ending(status, AT)

    @rule(which=ACTORS, back=st.integers(0, 2), kept=st.integers(0, 3))
    def reset(self, which: int, back: int, kept: int) -> None:
        """Reset an open chain to one of its last runs, or one that has ended to its latest."""
        chain = self._at(which)
        base = chain.runs[-1 if chain.over else -1 - back % len(chain.runs)]
        if base.gone or chain.latest.gone or not base.began or not self.temporal:
            return
        # The log cannot know which part of a stream a retry received of an earlier one. What a reset has undone stays
        # superseded, also if a later reset goes back to it.
        if chain.begins_elsewhere(base) or not chain.way_back(chain.latest.run_id, base.original):
            return
        last = [each for each in self.chains if each.workflow_id == chain.workflow_id][-1]
        if not chain.over or (chain is last and len(self.chains) < MOST_CHAINS):
            chain.reset(base, self._name(), kept)
            self._find()

    def _find(self) -> None:
        """A run that a reset began after the log had the chain's end is another run."""
        for chain in list(self.chains):
            closed = [data["run_id"] for data in self.log.of(chain.name, RUN_CLOSED)]
            for at, before in enumerate(chain.runs):
                ending = before.ending
                if ending is None or ending.follows_by != "reset" or before.run_id not in closed:
                    continue
                before.ending = Ending(ending.without_reset, AT)
                further, chain.runs = chain.runs[at + 1 :], chain.runs[: at + 1]
                if not further[-1].gone:
                    self._enter(Chain(chain.workflow_id, further), of=self.log.records[chain.name].first_run_id)
                break

    @rule()
    def start_again(self) -> None:
        of_a = [chain for chain in self.chains if chain.workflow_id == "a"]
        if of_a[-1].over and len(self.chains) < MOST_CHAINS:
            self._start("a")

    @rule(which=ACTORS, everything=st.booleans())
    def forget(self, which: int, everything: bool) -> None:
        """A retention is over, or Temporal was restarted without its data."""
        chain = self._at(which)
        for run in chain.runs if everything else chain.runs[:-1]:
            run.gone = True
            self.forgotten.add(chain.name)

    @rule()
    def worker_comes_or_goes(self) -> None:
        self.worker = not self.worker

    @rule()
    def temporal_comes_or_goes(self) -> None:
        self.temporal = not self.temporal

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds

    # What happens in gateways.

    @rule(which=ACTORS)
    def kill(self, which: int) -> None:
        if self.gateways:
            self._revive(sorted(self.gateways)[which % len(self.gateways)])

    @rule(which=ACTORS, count=st.integers(1, 12), twice=st.booleans())
    def step(self, which: int, count: int, twice: bool) -> None:
        run = sorted(self.gateways)[which % len(self.gateways)] if self.gateways else ""
        for _ in range(count):
            if run in self.gateways:
                self._step(run, twice=twice)

    @rule(seconds=st.sampled_from([0, 10]), status=st.sampled_from(["completed", "terminated"]))
    def a_chain_ends_without_a_worker(self, seconds: float, status: Any) -> None:
        """Make this likely: all that was published last is read later, if at all."""
        self.publish(0)
        self.go_on(0, "leaves")
        self.publish(0)
        self.end(0, status)
        self.worker = False
        self.time += seconds
        self.step(0, 12, twice=False)

    @rule(which=ACTORS, kept=st.integers(0, 1))
    def a_reset_goes_back_to_an_earlier_run(self, which: int, kept: int) -> None:
        """Make this likely: a later one may go back over it."""
        self.publish(which)
        self.go_on(which, "leaves")
        self.publish(which)
        self.reset(which, back=1, kept=kept)

    def _step(self, run: str, *, twice: bool = False) -> None:
        """Execute one effect, and decide if it gives an observation; the observation may come twice."""
        gateway = self.gateways[run]
        if not gateway.effects:
            if gateway.life.phase in (Phase.RESTING, Phase.DONE):
                self._revive(run)
            return
        try:
            observation = self._execute(run, gateway.effects[0])
        except FencedError:
            if not isinstance(gateway.effects[0], do.Append):
                self._revive(run)
                return
            observation = saw.Read(self.log.records[run].run_id, Answer.NOBODY, fenced=True)
        if observation is None and isinstance(gateway.effects[0], do.Question):
            return  # not answered yet
        gateway.effects.pop(0)
        if observation is None:
            return
        record = self.log.records[run]
        offset = self.log.offset(record)
        now = Now(observation, record, self.time, offset)
        before = gateway.life
        after, effects = reduce(before, now)
        if twice:
            after, more = reduce(after, now)
            effects = (*(e for e in effects if not isinstance(e, do.Question)), *(more or effects[-1:]))
        gateway.life, gateway.effects = after, [*effects]
        self._note(run, before, after, offset)

    def _note(self, run: str, before: Life, after: Life, offset: int) -> None:
        """Note which parts of a run come late or never."""
        ending = before.ending
        left = before.phase in (Phase.DRAINING, Phase.STRANDED) and after.phase is Phase.FOLLOWING
        if not left or not after.unheard or ending is None or ending.carries is not False:
            return
        if before.worker_seen or ending.given > offset:
            # A worker is there that cannot replay it, or the next run received more of its stream than was read.
            self.lost.add(run)
        else:
            self.late.add(run)

    def _execute(self, run: str, effect: do.Effect) -> saw.Observation | None:
        record = self.log.records[run]
        match effect:
            case do.Append():
                self.log.report(run, effect)
                self._find()
            case do.Write(changes):
                self.log.records[run] = msgspec.structs.replace(record, **changes)
            case do.PassOver(stream, given):
                self.log.pass_over(stream, min(given, self.log.offset(record)))
            case do.Supersede(next_run_id, output):
                if output:
                    self._supersede(record, next_run_id)
            case do.Abandon():
                self.lost.add(run)
                self.log.abandoned.add(f"drained:{run}")
                self.log.abandoned |= {
                    f"stream:{name}" for name in (record.stream, *(each.stream for each in record.unread))
                }
            case do.AwaitTurn():
                return self._turn(run)
            case do.CheckSession(again):
                return self._standing(run, again)
            case _:
                return self._ask(run, effect)
        return None

    def _supersede(self, record: Run, next_run_id: str) -> None:
        """Make void the streams from the present run back to the one that was reset."""
        chain = self._chain(record.run)
        # The streams of an ended run, which this one began as a reset of, stay as they are.
        kept = {record.stream, *(self._of_the_ended(chain) if record.chain else [])}
        unread = {each.stream: each.stream_attempt for each in record.unread}
        way = chain.way_back(record.run_id, chain.of(next_run_id).original)
        for begun in [*way, *(chain.carried(way[-1]) if way else [])]:
            for name in record.streams_of(begun.run_id, begun.original) - kept:
                self.log.supersede(name, unread.get(name, 0))

    def _of_the_ended(self, chain: Chain) -> set[str]:
        runs = {run.run_id: run for each in self.chains for run in each.runs}
        ended, begun = set[str](), runs.get(chain.name)
        while begun is not None:
            ended.add(begun.original)
            begun = runs.get(begun.previous)
        return ended

    def _ask(self, run: str, effect: do.Effect) -> saw.Observation | None:
        """Ask Temporal."""
        record, chain = self.log.records[run], self._chain(run)
        match effect:
            case do.Follow():
                followed = self._temporal_run(record.run_id)
                if not self.temporal:
                    return None
                if followed.gone:
                    return saw.Ended(record.run_id, Ending("unknown", AT, reason="forgotten"))
                if self.worker and followed.ending is None:
                    followed.began = True
                if self.worker and followed.began:
                    self.log.copy(run, record, followed.stream)
                if (ending := followed.ending) is not None:
                    reported = ending.follows_by == "reset" and f"closed:{run}" in self.log.positions
                    return saw.Ended(record.run_id, ending, reported=reported)
            case do.ReadRest():
                return self._read(run, effect)
            case do.DescribeChain():
                gone = chain.latest.gone
                described = self.temporal and not gone
                return saw.ChainSeen(chain.over, chain.latest.run_id) if described else saw.NotSeen(self.temporal)
            case do.DescribeRun(run_id):
                described = self.temporal and not self._temporal_run(run_id).gone
                return saw.Seen() if described else saw.NotSeen(self.temporal)
            case do.AskWorker(run_id):
                return saw.WorkerSeen(self.worker and self.temporal and not self._temporal_run(run_id).gone)
        return None

    def _standing(self, run: str, again: bool) -> saw.Standing:
        others = [other for other in self.log.records.values() if other.run != run and other.open]
        all_ended = all(f"closed:{other.run}" in self.log.positions for other in others)
        topics = (RUN_STARTED, RUN_CLOSED, SESSION_SETTLED)
        standing = [(offset, event.topic) for offset, event in enumerate(self.log.events) if event.topic in topics]
        last = standing[-1][0] if standing and standing[-1][1] == RUN_CLOSED else None
        reported = f"closed:{run}" in self.log.positions
        return saw.Standing(again, reported, len(others), all_ended, last if reported and all_ended else None)

    def _turn(self, run: str) -> saw.Observation | None:
        """Earlier runs of the Workflow Id end first, and every rest is added or abandoned first."""
        record = self.log.records[run]
        for other in self.log.records.values():
            earlier = other.workflow_id == record.workflow_id and other.started_at < record.started_at
            if other.run == run or not (other.owed or (earlier and other.open)):
                continue
            gateway = self.gateways.get(other.run)
            if gateway is None:
                self._revive(other.run)
            elif gateway.life.phase is Phase.RESTING and gateway.life.deadline is None and not other.open:
                gateway.life, effects = reduce(gateway.life, Now(saw.LastChance(), other, self.time))
                gateway.effects = [*effects]
            return None
        return saw.TurnCame()

    def _read(self, run: str, effect: do.ReadRest) -> saw.Observation:
        record = self.log.records[run]
        asked = effect.unread or record
        read = self._temporal_run(asked.run_id)
        self.time += effect.pause
        if self.temporal and not (read.gone or read.began):
            return saw.Read(asked.run_id, Answer.NEVER_BEGAN)
        if not (self.worker and self.temporal) or read.gone:
            if effect.deadline is not None:
                self.time = max(self.time, effect.deadline)
            return saw.Read(asked.run_id, Answer.NOBODY)
        try:
            self.log.copy(run, asked, read.stream)
        except FencedError:
            return saw.Read(asked.run_id, Answer.NOBODY, fenced=True)
        return saw.Read(asked.run_id, Answer.READ)

    # What always holds.

    @invariant()
    def one_start_and_one_end(self) -> None:
        for run in self.log.records:
            topics = [topic for name, topic, *_ in self.log.events if name == run]
            assert topics[:1] in ([], [RUN_STARTED])
            assert topics.count(RUN_STARTED) <= 1
            assert topics.count(RUN_CLOSED) <= 1
            assert topics.count(RUN_DRAINED) <= 1

    @invariant()
    def after_the_end_comes_the_rest_alone(self) -> None:
        for run in self.log.records:
            mine = [
                (topic, data) for name, topic, data, *_ in self.log.events if name == run and topic != SESSION_SETTLED
            ]
            topics = [topic for topic, _ in mine]
            if RUN_CLOSED in topics:
                end = topics.index(RUN_CLOSED)
                rest = topics[end + 1 :]
                assert set(rest) <= {ITEM, RUN_DRAINED}
                assert not (mine[end][1]["drained"] and rest)
                assert RUN_DRAINED not in rest[:-1]

    @invariant()
    def each_item_once_and_in_order(self) -> None:
        for run in self.log.records:
            items = self.log.stands(run)
            assert len(items) == len(set(items))
            if run not in self.late:
                assert items == sorted(items, key=number)

    @invariant()
    def ends_come_in_the_order_of_starts(self) -> None:
        of_a = sorted((chain.name for chain in self.chains if chain.workflow_id == "a"), key=number)
        ended = [name for name, topic, *_ in self.log.events if topic == RUN_CLOSED and name in of_a]
        assert ended == of_a[: len(ended)]
        for before, after in pairwise(of_a):
            names = [name for name, topic, *_ in self.log.events if topic != SESSION_SETTLED]
            if after in names:
                assert before not in names[names.index(after) :]

    def teardown(self) -> None:
        """At last everything ends, and a worker is there: nothing is missing, and the session is settled once more."""
        self.worker = self.temporal = True
        for chain in self.chains:
            chain.latest.ending = chain.latest.ending or Ending("completed", AT)
        before = deepcopy({name: vars(self)[name] for name in KEPT})
        self._to_the_end()
        self._nothing_is_missing()
        self._every_replay_is_the_same(before)

    def _every_replay_is_the_same(self, before: dict[str, Any]) -> None:
        """Whenever all gateways are killed once more on the way, each run's events and record are the same in the end."""
        results: list[Any] = []
        for killed_after in KILLS:
            vars(self).update(deepcopy(before))
            self._kill_all()
            self._to_the_end(killed_after)
            events = {run: [event[1:] for event in self.log.events if event[0] == run] for run in self.log.records}
            own = {run: [each for each in mine if each[0] != SESSION_SETTLED] for run, mine in events.items()}
            settled = sum(topic == SESSION_SETTLED for _, topic, *_ in self.log.events)
            # Whether a run that a reset began is found before or after the session has settled depends on the kill.
            found_meanwhile = len(self.chains) > len(before["chains"])
            # So does which rests were passed over, and which were abandoned after that: nothing reads these again.
            records = {run: msgspec.structs.replace(each, unread=()) for run, each in self.log.records.items()}
            results.append((own, found_meanwhile or settled, records))
        assert all(result == results[0] for result in results)

    def _kill_all(self) -> None:
        for run in list(self.log.records):
            self._revive(run)

    def _to_the_end(self, killed_after: int | None = None) -> None:
        steps = 0
        for _ in range(400 + 20 * self.count):  # the more runs there are, the more steps it takes
            if not self.gateways:
                break
            for run in sorted(self.gateways):
                if steps == killed_after:
                    self._kill_all()
                steps += 1
                if run in self.gateways:
                    self._step(run)
        assert not self.gateways

    def _nothing_is_missing(self) -> None:
        for chain in self.chains:
            run, went_on = chain.name, [each.run_id for each in chain.runs[1:]]
            (closed,) = self.log.of(run, RUN_CLOSED)
            assert not self.log.records[run].owed
            continued = [data["run_id"] for data in self.log.of(run, RUN_CONTINUED)]
            if run in self.forgotten:
                continue
            assert continued == went_on
            assert chain.latest.ending is not None
            assert closed["status"] == chain.latest.ending.status
            assert closed["run_id"] == chain.latest.run_id
            if run not in self.lost:
                assert sorted(self.log.stands(run)) == sorted(chain.said())
        if self.chains:
            standing = [
                topic for _, topic, *_ in self.log.events if topic in (RUN_STARTED, RUN_CLOSED, SESSION_SETTLED)
            ]
            assert standing[-1] == SESSION_SETTLED
            assert "|".join(standing).find(f"{SESSION_SETTLED}|{SESSION_SETTLED}") < 0


def test_whatever_happens_in_whatever_order_the_session_has_each_run_s_life_once() -> None:
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=times(150, 5_000),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
