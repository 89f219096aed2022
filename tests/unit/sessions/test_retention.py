"""What is kept of sessions, and for how long: by age, by events, by bytes; over both engines, with a clock of the test's own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import ENGINES, remove_store, start_servers
from tests.support import close, everything
from wakeline.errors import StorageFailedError
from wakeline.events import RUN_CLOSED, RUN_STARTED, SESSION_CLOSED, SESSION_SETTLED, compose, timestamp
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Append, Appended, Engine, NewSession
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import (
    Deletions,
    Keeper,
    Retention,
    Run,
    Runs,
    SessionConfig,
    Status,
    decode_config,
    deletion,
    encode_config,
    retention,
)

NOW = 1_800_000_000.0


class Gateway:
    """The parts that retention works on, and a clock."""

    def __init__(self, engine: Engine, **default: Any) -> None:
        self.engine = engine
        self.now = NOW
        self.metrics = Metrics()
        self.runs = Runs(engine)
        self.positions = Positions(engine, Presence())
        self.deletions = Deletions(engine, self.runs, self.positions, self.metrics)
        self.keeper = self.new_keeper(**default)

    def new_keeper(self, **default: Any) -> Keeper:
        return Keeper(
            self.engine, self.runs, self.deletions, Retention(**default), self.metrics, clock=lambda: self.now
        )

    async def publish(self, session: str, *topics: str, size: int = 10, close: bool = False) -> Appended:
        time = timestamp(datetime.fromtimestamp(self.now, UTC))
        events = tuple(compose(topic, b'"' + b"x" * size + b'"', time=time) for topic in topics)
        return await self.engine.append(Append(session, events, close=close))

    async def run(self, session: str, status: Status, name: str = "1") -> None:
        """A run's record, and what the log says of it, in the order in which a follower writes them."""
        run = Run("w", name, name, name, "W", timestamp(), status)
        if status == "running":
            await self.runs.put(session, run)
            await self.publish(session, RUN_STARTED)
        else:
            others = [r for r in await self.runs.of(session) if r.run != name]
            settles = all(r.status != "running" for r in others)
            await self.publish(session, RUN_CLOSED, *([SESSION_SETTLED] if settles else []))
            await self.runs.put(session, run)

    async def retain(self, session: str, **kept: Any) -> None:
        state = await self.engine.state(session)
        assert state is not None
        changed = SessionConfig(Retention(**kept))
        await self.engine.configure(session, epoch=state.epoch, config=encode_config(changed))

    async def after(self, seconds: float) -> None:
        self.now += seconds
        await self.keeper.sweep()

    async def exists(self, session: str) -> bool:
        return await self.engine.state(session) is not None

    async def deadline(self, session: str) -> float | None:
        state = await self.engine.state(session)
        assert state is not None
        return state.deadline

    async def kept(self, session: str) -> list[int]:
        return [event.offset for event in await everything(self.engine, session)]

    def counted(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"wakeline_{name}_total") or 0


@pytest.fixture(params=sorted(ENGINES.keys() - {"nats_of_three"}))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    start_servers(request.param, request)
    opened = ENGINES[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()
    await remove_store(request.param, tmp_path)


async def test_a_settled_session_is_deleted_after_its_age(engine: Engine) -> None:
    gateway = Gateway(engine, age=100)
    await gateway.run("a", "running")
    await gateway.after(1000)
    assert await gateway.deadline("a") is None, "it has an open run"
    await gateway.run("a", "completed")
    settled = gateway.now
    await gateway.after(1)
    assert await gateway.deadline("a") == settled + 100
    await gateway.after(98)
    await gateway.publish("a", "t")  # what is published later changes nothing: it was settled then
    await gateway.after(0)
    assert await gateway.exists("a")
    await gateway.after(1)
    assert not await gateway.exists("a")
    assert await engine.records("") == []
    assert (gateway.counted("sessions_deleted"), gateway.counted("sessions_expired")) == (1, 1)


async def test_a_session_that_only_publishers_write_has_no_age_until_it_is_closed(engine: Engine) -> None:
    gateway = Gateway(engine, age=100)
    await gateway.publish("a", "t")
    await gateway.after(1000)
    assert await gateway.exists("a")
    await gateway.publish("a", SESSION_CLOSED, close=True)
    await gateway.after(99)
    assert await gateway.exists("a")
    await gateway.after(1)
    assert not await gateway.exists("a")


async def test_a_session_closed_without_a_word_counts_from_its_last_event(engine: Engine) -> None:
    gateway = Gateway(engine, age=100)
    await gateway.publish("a", "t")
    await close(engine, "a")
    await engine.create_session(NewSession("empty", closed=True))
    await gateway.after(0)
    assert await gateway.deadline("a") == NOW + 100
    assert not await gateway.exists("empty"), "it counts from its creation, which was long before the test's clock"


async def test_a_run_that_starts_keeps_the_session(engine: Engine) -> None:
    gateway = Gateway(engine, age=100)
    await gateway.run("a", "running")
    await gateway.run("a", "completed")
    await gateway.after(50)
    assert await gateway.deadline("a") == NOW + 100
    await gateway.run("a", "running", "2")
    await gateway.after(1)
    assert await gateway.deadline("a") is None
    await gateway.after(1000)
    await gateway.run("a", "failed", "2")
    await gateway.after(99)
    assert await gateway.exists("a")
    await gateway.after(1)
    assert not await gateway.exists("a")


async def test_a_session_with_an_open_run_is_never_deleted_by_age(engine: Engine) -> None:
    gateway = Gateway(engine, age=100)
    await gateway.run("a", "running", "1")
    await gateway.run("a", "running", "2")
    await gateway.run("a", "completed", "1")
    await gateway.after(1000)
    assert await gateway.exists("a")
    # Whatever says that it is due: the record of its runs is asked last.
    state = await engine.state("a")
    assert state is not None
    await engine.configure("a", epoch=state.epoch, deadline=gateway.now)
    await gateway.after(1)
    assert await gateway.deadline("a") is None
    await gateway.run("a", "completed", "2")
    await gateway.after(1)
    await gateway.after(100)
    assert not await gateway.exists("a")


async def test_a_deadline_that_is_moved_while_others_are_deleted_counts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(engine)
    its = encode_config(SessionConfig(content_type="text/plain", ttl=100))
    for number, session in enumerate("ab"):
        await engine.create_session(NewSession(session, config=its, deadline=NOW + number))
    delete = gateway.deletions.delete

    async def use_the_other(session: str, **how: Any) -> bool:
        """Another gateway reads the other stream meanwhile."""
        state = await engine.state("b")
        assert state is not None
        await engine.configure("b", epoch=state.epoch, deadline=NOW + 1000)
        return await delete(session, **how)

    monkeypatch.setattr(gateway.deletions, "delete", use_the_other)
    await gateway.after(10)
    assert not await gateway.exists("a")
    assert await gateway.deadline("b") == NOW + 1000


async def test_the_oldest_events_go_when_there_are_too_many(engine: Engine) -> None:
    gateway = Gateway(engine, events=5)
    await gateway.publish("a", *["t"] * 4)
    await gateway.after(1)
    assert await gateway.kept("a") == [0, 1, 2, 3]
    await gateway.publish("a", *["t"] * 4)
    await gateway.publish("b", *["t"] * 2)
    await gateway.after(1)
    assert (await gateway.kept("a"), await gateway.kept("b")) == ([3, 4, 5, 6, 7], [0, 1])
    assert gateway.counted("events_trimmed") == 3


async def test_the_oldest_events_go_when_they_are_too_large(engine: Engine) -> None:
    gateway = Gateway(engine)
    await gateway.publish("a", "t", "t", "t", size=1000)
    (event, *_) = await everything(engine, "a")
    await gateway.retain("a", bytes=2 * len(event.body))
    await gateway.after(1)
    assert await gateway.kept("a") == [1, 2]
    await gateway.publish("a", "t", size=10)
    await gateway.after(1)
    assert await gateway.kept("a") == [2, 3]
    await gateway.publish("a", "t", size=5000)
    await gateway.after(1)
    assert await gateway.kept("a") == []
    assert (await gateway.publish("a", "t")).first_offset == 5


async def test_a_session_s_own_retention_counts_in_place_of_the_settings(engine: Engine) -> None:
    gateway = Gateway(engine, events=2, age=10)
    for session in ("default", "all", "three"):
        await gateway.publish(session, *["t"] * 5)
    await gateway.retain("all")
    await gateway.retain("three", events=3)
    await gateway.after(1)
    assert await gateway.kept("default") == [3, 4]
    assert await gateway.kept("all") == [0, 1, 2, 3, 4]
    assert await gateway.kept("three") == [2, 3, 4]
    for session in ("default", "all", "three"):
        await gateway.publish(session, SESSION_CLOSED, close=True)
    await gateway.after(100)
    assert [await gateway.exists(s) for s in ("default", "all", "three")] == [False, True, True]


async def test_a_retention_that_changes_is_looked_at_at_once(engine: Engine) -> None:
    gateway = Gateway(engine)
    await gateway.publish("a", *["t"] * 5)
    await gateway.publish("a", SESSION_CLOSED, close=True)
    await gateway.after(1)
    await gateway.retain("a", age=50, events=2)
    await gateway.after(1)
    assert await gateway.kept("a") == [4, 5]
    assert await gateway.deadline("a") == NOW + 50
    await gateway.retain("a", age=80)
    await gateway.after(1)
    assert await gateway.deadline("a") == NOW + 80
    await gateway.retain("a")
    await gateway.after(1)
    assert await gateway.deadline("a") is None


async def test_a_stream_s_own_lifetime_is_left_to_it(engine: Engine) -> None:
    gateway = Gateway(engine, age=10)
    await engine.create_session(
        NewSession("a", config=encode_config(SessionConfig(ttl=500)), closed=True, deadline=NOW + 500)
    )
    await gateway.after(100)
    assert await gateway.deadline("a") == NOW + 500
    await gateway.runs.put("a", Run("w", "1", "1", "1", "W", timestamp()))
    await gateway.after(400)
    assert await gateway.exists("a"), "it has an open run"
    assert (await gateway.deadline("a") or 0) > gateway.now
    await gateway.runs.put("a", Run("w", "1", "1", "1", "W", timestamp(), "completed"))
    await gateway.after(100)
    assert not await gateway.exists("a")


async def test_nothing_is_missed_for_ever_after_a_restart(engine: Engine) -> None:
    gateway = Gateway(engine)  # which keeps everything
    for number in range(250):
        await gateway.publish(f"{number}", *["t"] * 5)
    await gateway.run("settled", "running")
    await gateway.run("settled", "completed")
    await gateway.publish("settled", *["t"] * 5)
    await engine.create_session(NewSession("draft", closed=True, draft=True))
    again = gateway.keeper = gateway.new_keeper(age=100, events=3)
    again.start()
    async with asyncio.timeout(200):
        while await gateway.kept("99") != [2, 3, 4] or await gateway.kept("settled") != [5, 6, 7]:
            await asyncio.sleep(0.05)
    await again.stop()
    for number in range(250):
        assert await gateway.kept(f"{number}") == [2, 3, 4]
    assert await gateway.deadline("settled") == NOW + 100


async def test_a_session_far_behind_is_trimmed_in_turns(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_EVENTS", 10)
    monkeypatch.setattr(retention, "_MOST_STEPS", 3)
    gateway = Gateway(engine, events=5)
    await gateway.publish("large", *["t"] * 100)
    await gateway.publish("small", *["t"] * 7)
    await gateway.keeper.sweep()
    assert (await gateway.kept("large"))[0] == 30
    assert (await gateway.kept("small"))[0] == 2
    gateway.keeper.start()
    async with asyncio.timeout(200):
        while (await gateway.kept("large"))[0] != 95:
            await asyncio.sleep(0.01)
    await gateway.keeper.stop()
    assert gateway.counted("events_trimmed") == 97


async def test_a_look_that_fails_is_done_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(engine, events=1)
    await gateway.publish("a", "t", "t")
    await gateway.publish("b", "t", "t")

    async def failing(*_: Any, **__: Any) -> int:
        raise StorageFailedError("for the test")

    async def broken(*_: Any, **__: Any) -> int:
        raise RuntimeError("for the test")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "trim", failing)
        with pytest.raises(StorageFailedError):
            await gateway.keeper.sweep()
    await gateway.keeper.sweep()
    assert (await gateway.kept("a"), await gateway.kept("b")) == ([1], [1])
    await gateway.publish("a", "t", "t")
    await gateway.publish("b", "t")
    inner = engine.trim
    with monkeypatch.context() as patched:
        patched.setattr(engine, "trim", lambda s, *a, **k: broken() if s == "a" else inner(s, *a, **k))
        await gateway.keeper.sweep()
    assert await gateway.kept("b") == [2], "one session's failure is not another's"


@pytest.mark.parametrize("error", [StorageFailedError("for the test"), RuntimeError("for the test")])
async def test_a_session_that_cannot_be_deleted_delays_no_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    gateway = Gateway(engine, age=10)
    for session in ("a", "b"):
        await gateway.publish(session, "t", close=True)
        await gateway.after(1)
    inner, tried = engine.delete_session, list[str]()

    async def failing(session: str, **how: Any) -> bool:
        tried.append(session)
        if session == "a":
            raise error
        return await inner(session, **how)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "delete_session", failing)
        # The sweep reports that the store fails, and logs what nobody expected.
        with pytest.raises(StorageFailedError) if isinstance(error, StorageFailedError) else nullcontext():
            await gateway.after(10)
        await gateway.after(10)
    assert tried == ["a", "b"]
    assert (await gateway.exists("a"), await gateway.exists("b")) == (True, False)
    await gateway.after(60)
    assert not await gateway.exists("a")


async def test_the_due_sessions_of_another_gateway_are_read_to_a_limit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_DUE_SESSIONS", 2)
    monkeypatch.setattr(retention, "_MOST_DUE_SESSIONS", 4)
    gateway = Gateway(engine, age=10)
    for number in range(9):
        await gateway.publish(f"{number}", "t", close=True)
    await gateway.after(0)
    gateway.keeper._owns = "".__eq__
    inner, limits = engine.due, list[int]()

    async def due(now: float, *, limit: int) -> Any:
        limits.append(limit)
        return await inner(now, limit=limit)

    monkeypatch.setattr(engine, "due", due)
    await gateway.after(20)
    assert limits == [2, 4]


async def test_sessions_of_another_gateway_that_are_due_delay_no_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_DUE_SESSIONS", 2)
    gateway = Gateway(engine, age=10)
    for number in range(6):
        gateway.now += 1  # the first ones are due first
        await gateway.publish(f"{number}", "t", close=True)
    await gateway.after(0)
    gateway.keeper._owns = "5".__eq__
    await gateway.after(20)
    assert [number for number in range(6) if await gateway.exists(f"{number}")] == [0, 1, 2, 3, 4]


async def test_positions_and_runs_go_with_the_session(engine: Engine) -> None:
    gateway = Gateway(engine, age=10)
    await gateway.run("a", "running")
    await gateway.run("a", "completed")
    state = await engine.state("a")
    assert state is not None
    await gateway.positions.acknowledge("a", "alice", "phone", f"{state.epoch}-1")
    assert len(await engine.records("")) == 2
    await gateway.after(1)
    await gateway.after(10)
    assert await engine.records("") == []


async def test_a_deletion_that_is_cut_short_is_finished(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(engine)
    await gateway.run("a", "running")
    state = await engine.state("a")
    assert state is not None
    await gateway.positions.acknowledge("a", "alice", "phone", f"{state.epoch}-1")

    async def failing(*_: Any, **__: Any) -> None:
        raise StorageFailedError("for the test")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.runs, "forget", failing)
        with pytest.raises(StorageFailedError):
            await gateway.deletions.delete("a")
        assert not await gateway.exists("a")
        assert len(await engine.records("")) == 3
    another = Deletions(engine, gateway.runs, gateway.positions, gateway.metrics)
    await another.start()
    if engine.shared:  # the gateway that began it may still be there
        assert len(await engine.records("")) == 3
        monkeypatch.setattr(deletion, "ABANDONED_SECONDS", 0.0)
        await another.finish()
    assert await engine.records("") == []


async def test_what_was_cut_short_before_it_deleted_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(engine)
    await gateway.run("a", "running")

    async def failing(*_: Any, **__: Any) -> bool:
        raise StorageFailedError("for the test")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "delete_session", failing)
        with pytest.raises(StorageFailedError):
            await gateway.deletions.delete("a")
    await gateway.keeper.sweep()
    assert await gateway.exists("a")
    assert [run.run for run in await gateway.runs.of("a")] == ["1"]
    assert len(await engine.records("")) == 1


async def test_the_next_life_keeps_its_own_runs_when_an_earlier_deletion_is_finished(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(engine)
    await gateway.run("a", "running")

    async def failing(*_: Any, **__: Any) -> None:
        raise StorageFailedError("for the test")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.positions, "forget_session", failing)
        with pytest.raises(StorageFailedError):
            await gateway.deletions.delete("a")
    await gateway.run("a", "running", "2")
    await gateway.keeper.sweep()
    assert [run.run for run in await gateway.runs.of("a")] == ["2"]
    assert len(await engine.records("")) == 1


async def test_an_abandoned_draft_is_deleted_after_its_deadline(engine: Engine) -> None:
    gateway = Gateway(engine)
    draft, _ = await engine.create_session(NewSession("x", deadline=NOW + 10, draft=True))
    await gateway.after(9)
    assert await engine.due(NOW + 10) == [("x", draft.epoch)]
    await gateway.after(11)
    assert await engine.due(math.inf) == []
    await gateway.publish("x", "t")


def test_a_config_is_read_back_and_an_empty_one_takes_no_room() -> None:
    full = SessionConfig(Retention(1.5, 2, 3), "text/plain", 60, datetime.fromtimestamp(NOW, UTC))
    assert decode_config(encode_config(full)) == full
    assert encode_config(SessionConfig()) == b""
    assert decode_config(b"") == SessionConfig()
    assert decode_config(b'{"content_type": "a/b", "new": 1}') == SessionConfig(content_type="a/b")


def count_reads(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each read of a single session: by name of the method."""
    reads: list[str] = []

    def note(name: str) -> None:
        inner = getattr(engine, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            reads.append(name)
            return inner(*args, **kwargs)

        monkeypatch.setattr(engine, name, noted)

    for name in ("state", "read", "read_back", "get_records", "offset_within"):
        note(name)
    return reads


async def walk(gateway: Gateway) -> None:
    """Walk over all sessions as a gateway on a shared store does, then check what the walk has found."""
    engine, walked, over = gateway.engine, asyncio.Event(), asyncio.Event()
    list_sessions, list_due = engine.sessions, engine.due

    async def sessions(*args: Any, **kwargs: Any) -> Any:
        found = await list_sessions(*args, **kwargs)
        walked.set()
        return found

    async def due(*args: Any, **kwargs: Any) -> Any:  # what a sweep asks for after its checks
        if walked.is_set():
            over.set()
        return await list_due(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "sessions", sessions)
        patched.setattr(engine, "due", due)
        gateway.keeper.walk()
        gateway.keeper.start()
        async with asyncio.timeout(60):
            await over.wait()
        await gateway.keeper.stop()


async def test_a_walk_reads_no_session_that_has_not_changed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(engine, age=100, events=5, bytes=10_000)
    for number in range(5):
        await gateway.run(f"open-{number}", "running")
        await gateway.publish(f"plain-{number}", "t", "t")
    await gateway.run("ended", "running")
    await gateway.run("ended", "completed")
    await walk(gateway)
    assert await gateway.deadline("ended") == NOW + 100
    reads = count_reads(engine, monkeypatch)
    await walk(gateway)
    assert reads == []


async def test_a_check_that_a_stop_interrupts_is_made_after_the_next_start(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(engine, age=100)
    await gateway.run("ended", "running")
    await gateway.run("ended", "completed")
    begun = asyncio.Event()

    async def hangs(*_: Any, **__: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(engine, "configure", hangs)
        gateway.keeper.start()
        async with asyncio.timeout(60):
            await begun.wait()
        await gateway.keeper.stop()
    gateway.keeper.start()
    async with asyncio.timeout(60):
        while await gateway.deadline("ended") is None:
            await asyncio.sleep(0.01)
    await gateway.keeper.stop()


async def test_a_walk_that_finds_sessions_without_limits_reads_none(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await Gateway(engine).publish(f"plain-{number}", "t", "t")
    gateway = Gateway(engine)
    reads = count_reads(engine, monkeypatch)
    await walk(gateway)
    assert reads == []


async def test_a_walk_finds_what_other_gateways_changed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(engine, age=100)
    await gateway.run("ends", "running")
    await gateway.publish("grows", "t", "t", "t")
    await walk(gateway)
    with monkeypatch.context() as patched:  # the notifications of these commits are lost
        patched.setattr(engine.feed, "announce_all", lambda _: None)
        patched.setattr(engine.feed, "announce", lambda *_, **__: None)
        await gateway.run("ends", "completed")
        await gateway.retain("grows", events=1)
    await walk(gateway)
    assert await gateway.deadline("ends") == NOW + 100
    assert await gateway.kept("grows") == [2]
