"""Every engine against a model of ten lines, in random order, with restarts in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.contract.conftest import ENGINES, ON_SERVERS, remove_store, start_servers
from tests.soak import times
from tests.support import batch, close, data_of, everything
from wakeline.errors import (
    AttemptFencedError,
    EpochChangedError,
    SequenceGapError,
    SessionClosedError,
    SessionDeletedError,
)
from wakeline.gateway.log import Append, Engine, NewSession, Publication

T = TypeVar("T")
SESSIONS = st.sampled_from(["s", "other"])
PUBLISHERS = st.sampled_from(["p", "q"])


@dataclass
class ModelSession:
    epoch: str
    first: int = 0
    closed: bool = False
    config: bytes = b""
    deadline: float | None = None
    # By offset, those before `first` too: what was there stays known to its publisher.
    events: list[Any] = field(default_factory=list)
    # publisher -> (attempt, offsets of its events by sequence)
    positions: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    # publisher -> offsets of its earlier attempts' events that still count
    kept: dict[str, list[int]] = field(default_factory=dict)

    def begin(self, publisher: str, attempt: int, supersedes: bool) -> None:
        """An attempt begins, if it is a new one: the earlier ones' events are superseded, or go on to count."""
        before, offsets = self.positions.get(publisher, (0, []))
        if attempt == before:
            return
        counted = sorted([*self.kept.get(publisher, []), *offsets])
        self.positions[publisher] = (attempt, [])
        self.kept[publisher] = [] if supersedes else counted
        if supersedes and counted:
            ranges: list[list[int]] = []
            for offset in counted:
                if ranges and ranges[-1][1] == offset - 1:
                    ranges[-1][1] = offset
                else:
                    ranges.append([offset, offset])
            self.events.append({"activity": None, "attempt": attempt, "offsets": ranges})


class LogMachine(RuleBasedStateMachine):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.model: dict[str, ModelSession] = {}
        self.epochs: set[str] = set()
        self.count = 0
        self.told: list[tuple[str, str, str]] = []
        self.expected_told: list[tuple[str, str, str]] = []
        self.engine = self.opened()

    def run(self, awaitable: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(awaitable)

    def opened(self) -> Engine:
        engine = ENGINES[self.kind](Path(self.directory.name))
        engine.feed.listen(
            lambda commits: self.told.extend((c.session, c.epoch, change) for c in commits for change in c.changes)
        )
        self.run(engine.open())
        return engine

    def fresh(self, size: int) -> list[int]:
        self.count += size
        return list(range(self.count - size, self.count))

    def took(self, session: str, epoch: str, first: int = 0) -> ModelSession:
        model = self.model.get(session)
        if model is None:
            assert epoch not in self.epochs
            self.epochs.add(epoch)
            model = self.model[session] = ModelSession(epoch, first, events=[None] * first)
        assert model.epoch == epoch
        return model

    def change(self, session: str, change: str) -> None:
        self.expected_told.append((session, self.model[session].epoch, change))

    @rule(session=SESSIONS, size=st.integers(0, 4), close=st.booleans())
    def append(self, session: str, size: int, close: bool) -> None:
        if not size and not close:
            return
        data = self.fresh(size)
        append = Append(session, batch(session, *data).events, close=close)
        model = self.model.get(session)
        if model is not None and model.closed:
            with pytest.raises(SessionClosedError):
                self.run(self.engine.append(append))
            return
        answer = self.run(self.engine.append(append))
        model = self.took(session, answer.epoch)
        assert (answer.first_offset, answer.next_offset) == (len(model.events), len(model.events) + size)
        assert not answer.duplicate
        model.events += data
        if close:
            self.closes(session)

    def closes(self, session: str) -> None:
        if not self.model[session].closed:
            self.model[session].closed = True
            self.change(session, "closed")

    @rule(
        session=SESSIONS,
        publisher=PUBLISHERS,
        size=st.integers(1, 5),
        attempt_step=st.integers(-1, 1),
        back=st.integers(-1, 6),
        close=st.booleans(),
        supersedes=st.booleans(),
    )
    def append_once(
        self, session: str, publisher: str, size: int, attempt_step: int, back: int, close: bool, supersedes: bool
    ) -> None:
        now = self.model.get(session)
        attempt_now, offsets = now.positions.get(publisher, (1, [])) if now else (1, [])
        attempt = max(1, attempt_now + attempt_step)
        mine = offsets if attempt == attempt_now else []
        sequence = max(0, len(mine) - back)
        there = [now.events[o] for o in mine[sequence : sequence + size]] if now else []
        data = there + self.fresh(size - len(there))
        events = batch(session, *data, publisher=publisher, attempt=attempt, sequence=sequence, supersedes=supersedes)
        append = self.engine.append(Append(session, events.events, events.publication, close=close))
        whole = attempt >= attempt_now and len(there) == size
        if now and now.closed and not whole:
            with pytest.raises(SessionClosedError):
                self.run(append)
        elif attempt < attempt_now:
            with pytest.raises(AttemptFencedError):
                self.run(append)
        elif sequence > 0 and now is None:
            with pytest.raises(SessionDeletedError):
                self.run(append)
        elif sequence > len(mine):
            with pytest.raises(SequenceGapError) as refused:
                self.run(append)
            assert refused.value.expected == len(mine)
        else:
            answer = self.run(append)
            model = self.took(session, answer.epoch)
            model.begin(publisher, attempt, supersedes)
            after = [*mine, *range(len(model.events), len(model.events) + size - len(there))]
            model.events += data[len(there) :]
            model.positions[publisher] = (attempt, after)
            assert answer.first_offset == after[sequence]
            assert answer.next_offset == after[sequence + size - 1] + 1
            assert answer.duplicate == whole
            if close:
                self.closes(session)

    @rule(
        session=SESSIONS,
        publisher=PUBLISHERS,
        attempt_step=st.integers(-1, 1),
        supersedes=st.booleans(),
        again=st.sampled_from([None, "now", "before"]),
    )
    def open_attempt(
        self, session: str, publisher: str, attempt_step: int, supersedes: bool, again: str | None
    ) -> None:
        now = self.model.get(session)
        known = now is not None and publisher in now.positions
        attempt_now = now.positions[publisher][0] if now and known else 1
        attempt = max(1, attempt_now + attempt_step)
        epoch = now.epoch if now and again == "now" else again
        opening = self.engine.open_attempt(session, Publication(publisher, attempt, supersedes=supersedes), epoch=epoch)
        if epoch is not None and not known and (now is None or epoch != now.epoch):
            with pytest.raises(SessionDeletedError):
                self.run(opening)
        elif known and attempt < attempt_now:
            with pytest.raises(AttemptFencedError):
                self.run(opening)
        elif now and now.closed and not (known and attempt == attempt_now):
            with pytest.raises(SessionClosedError):
                self.run(opening)
        else:
            opened = self.run(opening)
            model = self.took(session, opened.epoch)
            if now is None:
                self.change(session, "configured")
            model.begin(publisher, attempt, supersedes)
            assert (opened.attempt, opened.next_sequence) == (attempt, len(model.positions[publisher][1]))
            assert opened.earlier_events == len(model.kept[publisher])

    @rule(session=SESSIONS, first=st.integers(0, 3), closed=st.booleans())
    def create(self, session: str, first: int, closed: bool) -> None:
        state, created = self.run(
            self.engine.create_session(
                NewSession(session, config=b"given", first_offset=first, closed=closed, deadline=7.0)
            )
        )
        assert created == (session not in self.model)
        model = self.took(session, state.epoch, first)
        if created:
            model.config, model.deadline, model.closed = b"given", 7.0, closed
            self.change(session, "configured")

    @rule(session=SESSIONS, config=st.binary(max_size=3), deadline=st.none() | st.integers(0, 9).map(float))
    def change_what_is_kept_with_it(self, session: str, config: bytes, deadline: float | None) -> None:
        if session in self.model:
            model = self.model[session]
            self.run(self.engine.configure(session, epoch=model.epoch, config=config))
            self.change(session, "configured")
            self.run(self.engine.configure(session, epoch=model.epoch, deadline=deadline))
            model.config, model.deadline = config, deadline

    @rule(session=SESSIONS, up_to=st.integers(0, 8), limit=st.integers(1, 5))
    def trim(self, session: str, up_to: int, limit: int) -> None:
        if session in self.model:
            model = self.model[session]
            before = min(model.first + up_to, len(model.events) + 2)
            expected = max(model.first, min(before, model.first + limit, len(model.events)))
            assert self.run(self.engine.trim(session, before, epoch=model.epoch, limit=limit)) == expected
            if expected > model.first:
                self.change(session, "trimmed")
            model.first = expected

    @rule(session=SESSIONS, wrong=st.booleans())
    def delete(self, session: str, wrong: bool) -> None:
        deleted = self.run(self.engine.delete_session(session, epoch="another" if wrong else None))
        assert deleted == (session in self.model and not wrong)
        if deleted:
            self.change(session, "deleted")
            del self.model[session]

    @rule(session=SESSIONS)
    def close(self, session: str) -> None:
        if session in self.model:
            if not self.model[session].closed:
                self.run(close(self.engine, session))
            self.closes(session)

    @rule(session=SESSIONS, first=st.integers(0, 3), size=st.integers(0, 3), finish=st.booleans())
    def draft(self, session: str, first: int, size: int, finish: bool) -> None:
        if session in self.model:
            return
        data = self.fresh(size)
        state, _ = self.run(
            self.engine.create_session(NewSession(session, first_offset=first, deadline=1.0, draft=True))
        )
        if data:
            self.run(self.engine.append(Append(session, batch(session, *data).events, epoch=state.epoch)))
        self.log_is_the_model(drafts=[(session, state.epoch)])
        if not finish:
            assert self.run(self.engine.delete_session(session, epoch=state.epoch, draft=True))
            return
        self.run(self.engine.configure(session, epoch=state.epoch, deadline=None, finish=True))
        self.took(session, state.epoch, first).events += data
        self.change(session, "configured")

    @rule(session=SESSIONS)
    def act_on_another_life(self, session: str) -> None:
        append = Append(session, batch(session, 1).events, epoch="another")
        with pytest.raises(EpochChangedError):
            self.run(self.engine.append(append))

    @rule()
    def restart(self) -> None:
        if self.kind in {"sqlite", *ON_SERVERS}:
            self.run(self.engine.close())
            self.engine = self.opened()

    @invariant()
    def log_is_the_model(self, drafts: Sequence[tuple[str, str]] = ()) -> None:
        states = {s.session: s for s in self.run(self.engine.sessions())}
        assert set(states) == set(self.model)
        for name, model in self.model.items():
            state = states[name]
            assert state == self.run(self.engine.state(name))
            assert (state.epoch, state.closed, state.next_offset) == (model.epoch, model.closed, len(model.events))
            assert (state.first_offset, state.config, state.deadline) == (model.first, model.config, model.deadline)
            events = self.run(everything(self.engine, name))
            assert [e.offset for e in events] == list(range(model.first, len(model.events)))
            assert [data_of(e) for e in events] == model.events[model.first :]
            assert state.size == sum(len(e.body) for e in events)
            for publisher, (attempt, offsets) in model.positions.items():
                position = self.run(self.engine.position(name, publisher))
                assert position is not None
                assert (position.attempt, position.next_sequence) == (attempt, len(offsets))
        due = [(n, m.epoch) for n, m in self.model.items() if m.deadline is not None and m.deadline <= 5]
        assert sorted(self.run(self.engine.due(5.0))) == sorted([*due, *drafts])

    @invariant()
    def listeners_were_told(self) -> None:
        assert self.told == self.expected_told

    def teardown(self) -> None:
        self.run(self.engine.close())
        self.run(remove_store(self.kind, Path(self.directory.name)))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.directory.cleanup()


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_every_engine_behaves_as_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    start_servers(kind, request)
    machine = type(f"{kind.title()}Machine", (LogMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=times(8 if kind in ON_SERVERS else 30, 60),  # there a step takes ten times as long
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
