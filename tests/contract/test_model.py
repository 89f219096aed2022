"""Every engine against a model of ten lines, in random order, with restarts in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.contract.conftest import ENGINES
from tests.support import data_of, everything, publish
from wakeline.errors import AttemptFencedError, SequenceGapError, SessionClosedError
from wakeline.gateway.engines.memory import MemoryEngine
from wakeline.gateway.log import Engine

T = TypeVar("T")
SESSIONS = st.sampled_from(["s", "other"])
PUBLISHERS = st.sampled_from(["p", "q"])


@dataclass
class ModelSession:
    epoch: str | None = None
    closed: bool = False
    events: list[Any] = field(default_factory=list)
    # publisher -> (attempt, offsets of its events by sequence)
    positions: dict[str, tuple[int, list[int]]] = field(default_factory=dict)


class LogMachine(RuleBasedStateMachine):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.model: dict[str, ModelSession] = {}
        self.epochs: set[str] = set()
        self.count = 0
        self.engine = self.opened()

    def run(self, awaitable: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(awaitable)

    def opened(self) -> Engine:
        engine = ENGINES[self.kind](Path(self.directory.name))
        self.run(engine.open())
        return engine

    def fresh(self, size: int) -> list[int]:
        self.count += size
        return list(range(self.count - size, self.count))

    def took(self, session: str, epoch: str) -> ModelSession:
        model = self.model.setdefault(session, ModelSession())
        if model.epoch is None:
            assert epoch not in self.epochs
            model.epoch = epoch
            self.epochs.add(epoch)
        assert model.epoch == epoch
        return model

    @rule(session=SESSIONS, size=st.integers(1, 4))
    def append(self, session: str, size: int) -> None:
        data = self.fresh(size)
        if self.model.get(session, ModelSession()).closed:
            with pytest.raises(SessionClosedError):
                self.run(publish(self.engine, session, *data))
            return
        answer = self.run(publish(self.engine, session, *data))
        model = self.took(session, answer.epoch)
        assert (answer.first_offset, answer.next_offset) == (len(model.events), len(model.events) + size)
        model.events += data

    @rule(
        session=SESSIONS,
        publisher=PUBLISHERS,
        size=st.integers(1, 5),
        attempt_step=st.integers(-1, 1),
        back=st.integers(-1, 6),
    )
    def append_once(self, session: str, publisher: str, size: int, attempt_step: int, back: int) -> None:
        model = self.model.get(session, ModelSession())
        attempt_now, offsets = model.positions.get(publisher, (1, []))
        attempt = max(1, attempt_now + attempt_step)
        expected = len(offsets) if attempt == attempt_now else 0
        sequence = max(0, expected - back)
        there = [model.events[o] for o in offsets[sequence : sequence + size]] if attempt == attempt_now else []
        data = there + self.fresh(size - len(there))
        append = publish(self.engine, session, *data, publisher=publisher, attempt=attempt, sequence=sequence)
        if model.closed:
            with pytest.raises(SessionClosedError):
                self.run(append)
        elif attempt < attempt_now:
            with pytest.raises(AttemptFencedError):
                self.run(append)
        elif sequence > expected:
            with pytest.raises(SequenceGapError) as refused:
                self.run(append)
            assert refused.value.expected == expected
        else:
            answer = self.run(append)
            model = self.took(session, answer.epoch)
            before = list(offsets) if attempt == attempt_now else []
            new = range(len(model.events), len(model.events) + size - len(there))
            model.events += data[len(there) :]
            after = before + list(new)
            model.positions[publisher] = (attempt, after)
            assert answer.first_offset == after[sequence]
            assert answer.next_offset == after[sequence + size - 1] + 1
            assert answer.duplicate == (len(there) == size)

    @rule(session=SESSIONS)
    def delete(self, session: str) -> None:
        assert self.run(self.engine.delete_session(session)) == (session in self.model)
        self.model.pop(session, None)

    @rule(session=SESSIONS)
    def close(self, session: str) -> None:
        if session in self.model:
            self.run(self.engine.close_session(session))
            self.model[session].closed = True

    @rule()
    def restart(self) -> None:
        if not isinstance(self.engine, MemoryEngine):
            self.run(self.engine.close())
            self.engine = self.opened()

    @invariant()
    def log_is_the_model(self) -> None:
        states = {s.session: s for s in self.run(self.engine.sessions())}
        assert set(states) == set(self.model)
        for name, model in self.model.items():
            state = states[name]
            assert (state.epoch, state.closed, state.next_offset) == (model.epoch, model.closed, len(model.events))
            events = self.run(everything(self.engine, name))
            assert [e.offset for e in events] == list(range(len(model.events)))
            assert [data_of(e) for e in events] == model.events

    def teardown(self) -> None:
        self.run(self.engine.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.directory.cleanup()


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_every_engine_behaves_as_the_model(kind: str) -> None:
    machine = type(f"{kind.title()}Machine", (LogMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
