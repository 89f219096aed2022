"""Who asked for something leaves in the middle, and is cancelled: it is done as a whole, or nothing of it is left."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import publish
from wakeline.events import timestamp
from wakeline.gateway.archive import Archive
from wakeline.gateway.deletion import Deletions
from wakeline.gateway.engines.memory import MemoryEngine
from wakeline.gateway.engines.sqlite import SqliteEngine, erasing
from wakeline.gateway.log import Append, Appended, Engine, SessionState
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.positions import Positions
from wakeline.gateway.presence import Presence
from wakeline.gateway.runs import Run, Runs
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

    working = asyncio.create_task(engine._writer.submit(work))
    try:
        await until(began.is_set)
        yield
    finally:
        done.set()
    await working


async def submitted(engine: SqliteEngine, count: int) -> None:
    """So many operations wait for the writer."""
    await until(lambda: engine._writer._queue.qsize() >= count)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_what_was_deleted_is_erased_though_who_asked_has_left(
    tmp_path: Path, engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(engine, "s", "secret")
    monkeypatch.setattr(erasing, "_SCRUB_SECONDS", 0.0)
    async with busy(engine):
        deleting = asyncio.create_task(engine.delete_session("s"))
        await submitted(engine, 1)
        deleting.cancel()
        await asyncio.wait([deleting])
    assert deleting.cancelled()
    with closing(sqlite3.connect(tmp_path / "wakeline.db")) as connection:
        await until(lambda: connection.execute("SELECT count(*) FROM events").fetchone() == (0,))


async def test_a_deletion_that_was_cut_short_while_it_was_committed_is_finished(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, deletions = Runs(engine), deletions_of(engine)
    await publish(engine, "s", 1)
    await runs.put("s", Run("w", "1", "1", "1", "W", timestamp(), "completed"))
    noted, go_on = asyncio.Event(), asyncio.Event()
    delete = engine.delete_session

    async def late(session: str, *, epoch: str | None = None) -> bool:
        noted.set()
        await go_on.wait()
        return await delete(session, epoch=epoch)

    monkeypatch.setattr(engine, "delete_session", late)
    deleting = asyncio.create_task(deletions.delete("s"))
    await noted.wait()
    async with busy(engine):
        go_on.set()
        await submitted(engine, 1)
        deleting.cancel()
        await asyncio.wait([deleting])
        finishing = asyncio.create_task(deletions.finish())
        await submitted(engine, 2)
    await finishing
    assert await engine.state("s") is None
    assert await runs.of("s") == []
    assert await engine.records("unfinished/") == []


class Yielding(MemoryEngine):
    """Lets others have their turn before and after each change, as an engine on another thread does."""

    async def append(self, append: Append) -> Appended:
        await asyncio.sleep(0)
        appended = await super().append(append)
        await asyncio.sleep(0)
        return appended

    async def create_session(self, session: str, **how: Any) -> tuple[SessionState, bool]:
        await asyncio.sleep(0)
        created = await super().create_session(session, **how)
        await asyncio.sleep(0)
        return created

    async def rename_session(self, session: str, name: str, *, epoch: str) -> None:
        await asyncio.sleep(0)
        await super().rename_session(session, name, epoch=epoch)
        await asyncio.sleep(0)

    async def delete_session(self, session: str, *, epoch: str | None = None) -> bool:
        await asyncio.sleep(0)
        deleted = await super().delete_session(session, epoch=epoch)
        await asyncio.sleep(0)
        return deleted


def deletions_of(engine: Engine) -> Deletions:
    return Deletions(engine, Runs(engine), Positions(engine, Presence()), Metrics())


async def cancelled_at_each_turn(begin: Callable[[Engine], Coroutine[Any, Any, object]]) -> None:
    """There is all of `s` after it, or nothing; and no draft."""
    finished, count = False, 0
    while not finished:
        engine = Yielding()
        task = asyncio.create_task(begin(engine))
        for _ in range(count):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert await engine.drafts() == [], f"after {count} turns"
        state = await engine.state("s")
        assert state is None or state.next_offset == 1
        count += 1
    assert count > 6


async def test_a_stream_that_is_made_leaves_no_draft() -> None:
    def begin(engine: Engine) -> Coroutine[Any, Any, object]:
        streams = Streams(engine, deletions_of(engine), Lifetimes(engine), max_event_bytes=1000)
        return streams.create("s", Creation("text/plain", Lifetime(), closed=False, body=b"hello"), lambda _: None)

    await cancelled_at_each_turn(begin)


async def test_an_import_leaves_no_draft() -> None:
    exporting = MemoryEngine()
    await publish(exporting, "s", 1)

    def archive(engine: Engine) -> Archive:
        return Archive(engine, Runs(engine), deletions_of(engine), most_bytes=10_000, most_line_bytes=10_000)

    file = [chunk async for chunk in archive(exporting).export("s")]

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in file:
            yield chunk

    await cancelled_at_each_turn(lambda engine: archive(engine).load("s", chunks()))
