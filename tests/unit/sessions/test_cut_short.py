"""Who asked for something leaves in the middle, and is cancelled: it is done as a whole, or nothing of it is left."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import publish
from wakeline.errors import SessionExistsError, SessionImportingError, StorageFailedError
from wakeline.events import timestamp
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Append, Appended, Engine, NewSession, SessionState
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import Archive, Deletions, Run, Runs
from wakeline.gateway.sessions.archive import DRAFT_SECONDS
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports.durable_streams.headers import Lifetime
from wakeline.gateway.transports.durable_streams.lifetimes import Lifetimes
from wakeline.gateway.transports.durable_streams.writing import Creation, Streams


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    opened = SqliteEngine(tmp_path, durability="process")
    await opened.open()
    await until(lambda: opened._eraser._wanted._waiters)  # what it does at the start is done
    yield opened
    await opened.close()


@asynccontextmanager
async def busy(engine: SqliteEngine) -> AsyncIterator[None]:
    """The writer is in the middle of a commit for as long as the block lasts: what is submitted comes after it."""
    began, done = threading.Event(), threading.Event()

    def work(*_: object) -> None:
        began.set()
        done.wait()

    working = asyncio.ensure_future(engine._writer.submit(work))
    try:
        await until(began.is_set)
        yield
    finally:
        done.set()
    await working


async def submitted(engine: SqliteEngine, count: int) -> None:
    """So many operations wait for the writer."""
    await until(lambda: len(engine._writer._queue) >= count)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_deleted_session_is_erased_although_its_caller_has_left(tmp_path: Path, engine: SqliteEngine) -> None:
    await publish(engine, "s", "secret")
    async with busy(engine):
        deleting = asyncio.create_task(engine.delete_session("s"))
        await submitted(engine, 1)
        deleting.cancel()
        await asyncio.wait([deleting])
    assert deleting.cancelled()
    with closing(sqlite3.connect(tmp_path / "wakeline.db")) as connection:
        await until(lambda: connection.execute("SELECT count(*) FROM events").fetchone() == (0,))


async def test_a_deletion_goes_on_though_who_asked_has_left_and_keeps_others_waiting(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(engine)
    deletions = Deletions(engine, runs, Positions(engine, Presence()), Metrics())
    await publish(engine, "s", 1)
    await runs.put("s", run("1"))
    noted, go_on = held_before(engine, "delete_session", monkeypatch)
    deleting = asyncio.create_task(deletions.delete("s"))
    await noted.wait()
    async with busy(engine):
        go_on.set()
        await submitted(engine, 1)
        deleting.cancel()
        await asyncio.wait([deleting])

        async def register() -> None:
            async with runs.lock("s"):
                await runs.put("s", run("2"))

        registering = asyncio.create_task(register())
        await asyncio.sleep(0)
    await registering
    await deletions.finish()
    assert await engine.state("s") is None
    assert [known.run for known in await runs.of("s")] == ["2"]
    assert await engine.records("unfinished/") == []


async def test_a_session_that_two_gateways_delete_at_once_is_deleted_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine()
    await publish(engine, "s", 1)
    await Runs(engine).add("s", run("1"))
    noted, go_on = held_before(engine, "delete_session", monkeypatch)
    first = asyncio.create_task(deletions_of(engine).delete("s"))
    await noted.wait()
    note = await engine.records("unfinished/")
    second = asyncio.create_task(deletions_of(engine).delete("s"))
    while await engine.records("unfinished/") == note:
        await asyncio.sleep(0)
    go_on.set()
    assert sorted(await asyncio.gather(first, second)) == [False, True]
    assert await engine.records("") == []


async def test_deletions_that_cannot_be_finished_are_tried_some_at_a_time_and_delay_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = MemoryEngine()
    deletions, tried = deletions_of(engine), list[str]()

    async def failing(key: str, *_: object, **__: object) -> Any:
        tried.append(key)
        raise StorageFailedError("for the test")

    names = [f"{number:02}" for number in range(12)]
    with monkeypatch.context() as patched:
        patched.setattr(engine, "delete_session", failing)
        for name in names:
            await publish(engine, name, 1)
            with pytest.raises(StorageFailedError):
                await deletions.delete(name)
        patched.setattr(engine, "get_record", failing)
        tried.clear()
        for _ in range(2):
            with pytest.raises(StorageFailedError):
                await deletions.finish()
    assert tried == [f"unfinished/{name}" for name in [*names, *names[:8]]]
    await deletions.finish()
    assert await engine.records("unfinished/") == []


async def test_a_life_that_begins_while_the_one_before_is_deleted_keeps_its_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = MemoryEngine()
    await publish(engine, "s", 1)
    runs = Runs(engine)
    await runs.add("s", run("1"))
    delete_session = engine.delete_session

    async def begin_another(*args: Any, **how: Any) -> bool:
        deleted = await delete_session(*args, **how)
        await publish(engine, "s", 2)
        await runs.forget("s")
        await runs.add("s", run("2"))
        return deleted

    monkeypatch.setattr(engine, "delete_session", begin_another)
    assert await deletions_of(engine).delete("s")
    assert [known.run for known in await runs.of("s")] == ["2"]


async def test_an_import_that_was_cut_short_while_it_was_committed_has_its_runs(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporting = MemoryEngine()
    await publish(exporting, "s", 1)
    await Runs(exporting).put("s", run("1"))
    file = [chunk async for chunk in archive_of(exporting).export("s")]
    runs = Runs(engine)
    deletions = Deletions(engine, runs, Positions(engine, Presence()), Metrics())
    noted, go_on = held_before(engine, "configure", monkeypatch)
    loading = asyncio.create_task(archive_of(engine, runs, deletions).load("s", chunks_of(file)))
    await noted.wait()
    async with busy(engine):
        go_on.set()
        await submitted(engine, 1)
        loading.cancel()
        await submitted(engine, 2)  # its draft is to be removed, if there still is one
        finishing = asyncio.create_task(deletions.finish())
        await submitted(engine, 3)
    await asyncio.wait([loading, finishing])
    assert [known.run for known in await runs.of("s")] == ["1"]
    assert await engine.state("s") is not None
    assert await engine.due(math.inf) == []
    assert await engine.records("unfinished/") == []


async def test_an_append_is_refused_while_its_session_is_imported() -> None:
    exporting, engine = MemoryEngine(), MemoryEngine()
    await publish(exporting, "s", 1)
    header, *rest = [chunk async for chunk in archive_of(exporting).export("s")]
    filling, finish = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield header
        filling.set()
        await finish.wait()
        for chunk in rest:
            yield chunk

    importing = asyncio.create_task(archive_of(engine).load("s", chunks()))
    await filling.wait()
    with pytest.raises(SessionImportingError):
        await publish(engine, "s", 2)
    with pytest.raises(SessionExistsError, match="is being imported"):
        await archive_of(engine).load("s", chunks_of([header, *rest]))
    assert await engine.state("s") is None
    finish.set()
    await importing
    assert (await publish(engine, "s", 2)).first_offset == 1


def held_before(engine: Engine, name: str, patch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Have a method of an engine stop before it does anything; tells when it has come there, and takes when to go on."""
    there, go_on = asyncio.Event(), asyncio.Event()
    method = getattr(engine, name)

    async def held(*args: Any, **how: Any) -> Any:
        there.set()
        await go_on.wait()
        return await method(*args, **how)

    patch.setattr(engine, name, held)
    return there, go_on


def run(name: str) -> Run:
    return Run("w", name, name, name, "W", timestamp(), "completed")


class Yielding(MemoryEngine):
    """Lets others have their turn before and after each change, as an engine on another thread does."""

    async def append(self, append: Append) -> Appended:
        await asyncio.sleep(0)
        appended = await super().append(append)
        await asyncio.sleep(0)
        return appended

    async def create_session(self, new: NewSession) -> tuple[SessionState, bool]:
        await asyncio.sleep(0)
        created = await super().create_session(new)
        await asyncio.sleep(0)
        return created

    async def configure(self, session: str, **how: Any) -> None:
        await asyncio.sleep(0)
        await super().configure(session, **how)
        await asyncio.sleep(0)

    async def delete_session(self, session: str, **how: Any) -> bool:
        await asyncio.sleep(0)
        deleted = await super().delete_session(session, **how)
        await asyncio.sleep(0)
        return deleted


def deletions_of(engine: Engine) -> Deletions:
    return Deletions(engine, Runs(engine), Positions(engine, Presence()), Metrics())


async def cancelled_at_each_turn(
    begin: Callable[[Engine], Coroutine[Any, Any, object]], *, may_leave_draft: bool = False
) -> None:
    """There is all of `s` after it, or nothing, or perhaps a draft that is deleted soon."""
    finished, count = False, 0
    while not finished:
        engine = Yielding()
        task = asyncio.create_task(begin(engine))
        for _ in range(count):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        soon = await engine.due(time.time() + DRAFT_SECONDS) if may_leave_draft else []
        assert await engine.due(math.inf) == soon, f"after {count} turns"
        state = await engine.state("s")
        assert state is None or state.next_offset == 1
        count += 1
    assert count > 3


async def test_a_stream_is_made_with_its_content_or_not_at_all() -> None:
    def begin(engine: Engine) -> Coroutine[Any, Any, object]:
        streams = Streams(engine, deletions_of(engine), Lifetimes(engine), Settings())
        return streams.create("s", Creation("text/plain", Lifetime(), closed=False, body=b"hello"), lambda _: None)

    await cancelled_at_each_turn(begin, may_leave_draft=True)


async def test_an_import_leaves_no_draft() -> None:
    exporting = MemoryEngine()
    await publish(exporting, "s", 1)
    file = [chunk async for chunk in archive_of(exporting).export("s")]
    await cancelled_at_each_turn(lambda engine: archive_of(engine).load("s", chunks_of(file)))


@pytest.mark.parametrize("changed", [False, True])
async def test_a_deletion_that_an_earlier_version_began_removes_the_runs_that_it_noted(changed: bool) -> None:
    engine = MemoryEngine()
    epoch = (await publish(engine, "s", 1)).epoch
    runs = Runs(engine)
    await runs.put("s", run("1"))
    record = await engine.get_record("runs/s")
    assert record is not None
    note = b'{"epoch":"%s","runs":%d}' % (epoch.encode(), record.revision)
    await engine.put_record("unfinished/s", note, revision=0)
    await engine.delete_session("s")
    await publish(engine, "s", 2)
    if changed:
        await runs.put("s", run("2"))  # of the new life
    await deletions_of(engine).start()
    assert bool(await runs.of("s")) == changed
    assert await engine.records("unfinished/") == []


def archive_of(engine: Engine, runs: Runs | None = None, deletions: Deletions | None = None) -> Archive:
    its, deletes = runs or Runs(engine), deletions or deletions_of(engine)
    return Archive(engine, its, deletes, Settings())


async def chunks_of(file: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in file:
        yield chunk
