"""Lives of several runs in one session against a model of Temporal and the log, in random order.

Gateways are killed between any two effects, observations come twice, and workers and Temporal come and go.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.soak import times
from wakeline.events import RUN_CLOSED, RUN_CONTINUED, RUN_DRAINED, RUN_STARTED, SESSION_SETTLED
from wakeline.gateway.following.life import begin, reduce
from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life import observations as saw
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.life.phases import Life, Now, Phase
from wakeline.gateway.sessions import Run
from wakeline.temporal.endings import Ending

AT = datetime(2026, 11, 29, tzinfo=UTC)
GRACE = 5.0
ITEM = "said"
ACTORS = st.integers(0, 3)
# What a machine is at one moment, and the steps after which all gateways are killed in its replays.
KEPT = ("log", "time", "count", "chains", "gateways", "said", "lost", "late")
KILLS = (None, 1, 2, 3, 5, 8, 13, 21)


@dataclass
class TemporalRun:
    """One Temporal run: its stream, and how it ended."""

    run_id: str
    stream: list[str]
    given: int = 0
    ending: Ending | None = None


@dataclass
class Chain:
    """A workflow execution chain of one Workflow Id."""

    workflow_id: str
    runs: list[TemporalRun]

    @property
    def latest(self) -> TemporalRun:
        return self.runs[-1]

    def of(self, run_id: str) -> TemporalRun:
        (found,) = [run for run in self.runs if run.run_id == run_id]
        return found


@dataclass
class Log:
    """The session: its events, the publishers' next sequences, and the records."""

    events: list[tuple[str, str, Any]] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    records: dict[str, Run] = field(default_factory=dict)

    def report(self, run: str, append: do.Append) -> None:
        if append.publisher not in self.positions:
            self.positions[append.publisher] = 1
            self.events += [(run, report.topic, report.data) for report in append.reports]

    def copy(self, run: Run, items: list[str]) -> None:
        publisher = f"stream:{run.stream}"
        have = self.positions.get(publisher, 0)
        self.events += [(run.run, ITEM, item) for item in items[have:]]
        self.positions[publisher] = max(have, len(items))

    def of(self, run: str, topic: str) -> list[Any]:
        return [data for name, each, data in self.events if (name, each) == (run, topic)]


@dataclass
class Gateway:
    """Whoever follows one run now: its life, and the effects that are still to be executed."""

    life: Life
    effects: list[do.Effect]
    waiting: bool = False  # for its turn


class Lives(RuleBasedStateMachine):
    """Two workflows in one session, of which the first may be started again."""

    def __init__(self) -> None:
        super().__init__()
        self.log, self.time, self.count = Log(), 0.0, 0
        self.worker, self.temporal = True, True
        self.chains: list[Chain] = []
        self.gateways: dict[str, Gateway] = {}
        self.said: dict[str, list[str]] = {}
        self.lost: set[str] = set()  # runs of which a worker could not replay a part, or whose rest was abandoned
        self.late: set[str] = set()  # runs of which a part comes after the end of their chain

    @initialize()
    def two_workflows(self) -> None:
        self._start("a")
        self._start("b")

    def _name(self) -> str:
        self.count += 1
        return f"run-{self.count}"

    def _start(self, workflow_id: str) -> None:
        run_id = self._name()
        self.chains.append(Chain(workflow_id, [TemporalRun(run_id, [])]))
        started_at = (AT + timedelta(seconds=len(self.chains))).isoformat()
        self.log.records[run_id] = Run(workflow_id, run_id, run_id, run_id, "Chat", started_at)
        self.said[run_id] = []
        self._revive(run_id)

    def _chain(self, run: str) -> Chain:
        (found,) = [chain for chain in self.chains if chain.runs[0].run_id == run]
        return found

    def _revive(self, run: str) -> None:
        record = self.log.records[run]
        self.gateways.pop(run, None)
        if record.open or record.owed:
            life, effects = begin(record, GRACE, started=f"started:{run}" in self.log.positions)
            self.gateways[run] = Gateway(life, list(effects))

    # What happens in Temporal.

    @rule(which=ACTORS)
    def publish(self, which: int) -> None:
        chain = self.chains[which % len(self.chains)]
        if chain.latest.ending is None and self.worker:
            item = self._name()
            chain.latest.stream.append(item)
            self.said[chain.runs[0].run_id].append(item)

    @rule(which=ACTORS, how=st.sampled_from(["carries", "leaves", "retry"]))
    def go_on(self, which: int, how: str) -> None:
        latest = (chain := self.chains[which % len(self.chains)]).latest
        if latest.ending is not None or not (self.worker and self.temporal):
            return
        kept = {"carries": len(latest.stream), "leaves": 0, "retry": latest.given}[how]
        follows_by: Any = "retry" if how == "retry" else "continue_as_new"
        given = kept if how == "retry" else 0
        follows = TemporalRun(self._name(), latest.stream[:kept], kept)
        latest.ending = Ending(None, AT, follows.run_id, follows_by, carries=how == "carries", given=given)
        chain.runs.append(follows)

    @rule(which=ACTORS, status=st.sampled_from(["completed", "terminated"]))
    def end(self, which: int, status: Any) -> None:
        latest = self.chains[which % len(self.chains)].latest
        if latest.ending is None and self.temporal and (self.worker or status == "terminated"):
            latest.ending = Ending(status, AT)

    @rule()
    def start_again(self) -> None:
        of_a = [chain for chain in self.chains if chain.workflow_id == "a"]
        if of_a[-1].latest.ending is not None and of_a[-1].latest.ending.status is not None and len(self.chains) < 4:
            self._start("a")

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

    def _step(self, run: str, *, twice: bool = False) -> None:
        """Execute one effect, and decide if it gives an observation; the observation may come twice."""
        gateway, record = self.gateways[run], self.log.records[run]
        if not gateway.effects:
            if gateway.life.phase in (Phase.RESTING, Phase.DONE):
                self._revive(run)
            return
        observation = self._execute(run, gateway.effects[0])
        if observation is None and isinstance(gateway.effects[0], do.Question):
            return  # not answered yet
        gateway.effects.pop(0)
        if observation is None:
            return
        offset = self.log.positions.get(f"stream:{record.stream}", 0)
        now = Now(observation, self.log.records[run], self.time, offset)
        before = gateway.life
        after, effects = reduce(before, now)
        if twice:
            after, more = reduce(after, now)
            effects = (*(e for e in effects if not isinstance(e, do.Question)), *(more or effects[-1:]))
        gateway.life, gateway.effects = after, [*effects]
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
        chain = self._chain(run)
        match effect:
            case do.Append():
                self.log.report(run, effect)
            case do.Write(changes):
                self.log.records[run] = msgspec.structs.replace(record, **changes)
            case do.PassOver(stream, given):
                have = self.log.positions.get(f"stream:{record.stream}", 0)
                if min(given, have):
                    self.log.positions.setdefault(f"stream:{stream}", min(given, have))
            case do.Abandon():
                self.lost.add(run)
            case do.AwaitTurn():
                return self._turn(run)
            case do.Follow():
                followed = chain.of(record.run_id)
                if self.worker:
                    self.log.copy(record, followed.stream)
                if followed.ending is not None and self.temporal:
                    return saw.Ended(record.run_id, followed.ending)
            case do.ReadRest():
                return self._read(run, effect)
            case do.DescribeChain():
                over = chain.latest.ending is not None
                return saw.ChainSeen(over, chain.latest.run_id) if self.temporal else saw.NotSeen(absent=False)
            case do.DescribeRun():
                return saw.Seen() if self.temporal else saw.NotSeen(absent=False)
            case do.AskWorker():
                return saw.WorkerSeen(self.worker and self.temporal)
            case do.CheckSession(again):
                others = [other for other in self.log.records.values() if other.run != run and other.open]
                all_ended = all(f"closed:{other.run}" in self.log.positions for other in others)
                standing = [
                    (offset, topic)
                    for offset, (_, topic, _) in enumerate(self.log.events)
                    if topic in (RUN_STARTED, RUN_CLOSED, SESSION_SETTLED)
                ]
                last = standing[-1][0] if standing and standing[-1][1] == RUN_CLOSED else None
                reported = f"closed:{run}" in self.log.positions
                return saw.Standing(again, reported, len(others), all_ended, last if reported and all_ended else None)
        return None

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
        if effect.unread is not None:
            record = msgspec.structs.replace(record, run_id=effect.unread.run_id, stream=effect.unread.stream)
        self.time += effect.pause
        if not (self.worker and self.temporal):
            if effect.deadline is not None:
                self.time = max(self.time, effect.deadline)
            return saw.Read(record.run_id, Answer.NOBODY)
        self.log.copy(record, self._chain(run).of(record.run_id).stream)
        return saw.Read(record.run_id, Answer.READ)

    # What always holds.

    @invariant()
    def one_start_and_one_end(self) -> None:
        for run in self.log.records:
            topics = [topic for name, topic, _ in self.log.events if name == run]
            assert topics[:1] in ([], [RUN_STARTED])
            assert topics.count(RUN_STARTED) <= 1
            assert topics.count(RUN_CLOSED) <= 1
            assert topics.count(RUN_DRAINED) <= 1

    @invariant()
    def after_the_end_comes_the_rest_alone(self) -> None:
        for run in self.log.records:
            mine = [(topic, data) for name, topic, data in self.log.events if name == run and topic != SESSION_SETTLED]
            topics = [topic for topic, _ in mine]
            if RUN_CLOSED in topics:
                end = topics.index(RUN_CLOSED)
                rest = topics[end + 1 :]
                assert set(rest) <= {ITEM, RUN_DRAINED}
                assert not (mine[end][1]["drained"] and rest)
                assert RUN_DRAINED not in rest[:-1]

    @invariant()
    def each_item_once_and_in_order(self) -> None:
        for run, said in self.said.items():
            items = self.log.of(run, ITEM)
            assert len(items) == len(set(items))
            if run not in self.late:
                assert items == [item for item in said if item in set(items)]

    @invariant()
    def ends_come_in_the_order_of_starts(self) -> None:
        of_a = [chain.runs[0].run_id for chain in self.chains if chain.workflow_id == "a"]
        ended = [name for name, topic, _ in self.log.events if topic == RUN_CLOSED and name in of_a]
        assert ended == of_a[: len(ended)]
        for before, after in pairwise(of_a):
            names = [name for name, topic, _ in self.log.events if topic != SESSION_SETTLED]
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
            settled = sum(topic == SESSION_SETTLED for _, topic, _ in self.log.events)
            results.append((own, settled, self.log.records))
        assert all(result == results[0] for result in results)

    def _kill_all(self) -> None:
        for run in list(self.log.records):
            self._revive(run)

    def _to_the_end(self, killed_after: int | None = None) -> None:
        steps = 0
        for _ in range(400):
            for run in sorted(self.gateways):
                if steps == killed_after:
                    self._kill_all()
                steps += 1
                if run in self.gateways:
                    self._step(run)
        assert not self.gateways

    def _nothing_is_missing(self) -> None:
        for run, said in self.said.items():
            assert len(self.log.of(run, RUN_CLOSED)) == 1
            assert not self.log.records[run].owed
            if run not in self.lost:
                assert sorted(self.log.of(run, ITEM)) == sorted(said)
            went_on = [continued["run_id"] for continued in self.log.of(run, RUN_CONTINUED)]
            assert went_on == [each.run_id for each in self._chain(run).runs[1:]]
        if self.chains:
            standing = [topic for _, topic, _ in self.log.events if topic in (RUN_STARTED, RUN_CLOSED, SESSION_SETTLED)]
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
