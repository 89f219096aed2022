"""What was deleted is in no file, whatever happened in between; and the file of an older version is brought along whole."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.soak import times
from tests.support import TIME, batch, data_of, everything, publish
from wakeline.gateway.engines.sqlite import SqliteEngine, erasing, scrubbing
from wakeline.gateway.engines.sqlite.appends import Appends
from wakeline.gateway.engines.sqlite.schema import APPLICATION_ID, MIGRATIONS
from wakeline.gateway.log import Appended

SECRET = "x7Qr-marker-"


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[SqliteEngine]:
    engine = SqliteEngine(directory)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "_SCRUB_SECONDS", 0.05)
    monkeypatch.setattr(erasing, "_RETRY_SECONDS", 0.05)


def files_hold(directory: Path, text: str) -> list[str]:
    return [path.name for path in sorted(directory.iterdir()) if text.encode() in path.read_bytes()]


async def until_erased(directory: Path, text: str = SECRET) -> None:
    """Until nothing is to be erased any more; then the files must not hold the text."""
    async with asyncio.timeout(60):
        with closing(sqlite3.connect(directory / "wakeline.db")) as connection:
            while connection.execute("SELECT 1 FROM erasing").fetchone():
                await asyncio.sleep(0.05)
        while files_hold(directory, text):  # the log of that very last commit
            await asyncio.sleep(0.05)


def rows_left(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "wakeline.db")) as connection:
        tables = ("erasing", "events", "publishers", "publications", "sessions")
        return sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)


async def fill(engine: SqliteEngine, sessions: list[str], *, seed: int = 1) -> dict[str, int]:
    """Events of all sizes, interleaved, so that sessions share pages; and publishers that interleave."""
    chance = random.Random(seed)
    sequences = dict.fromkeys([f"{session}/{p}" for session in sessions for p in "pq"], 0)
    for _ in range(60 * len(sessions)):
        session, publisher = chance.choice(sessions), chance.choice("pq")
        key = f"{session}/{publisher}"
        data = [f"{SECRET}{session}-{n}" + "y" * chance.choice([1, 50, 300, 9000]) for n in range(chance.randint(1, 4))]
        await publish(engine, session, *data, publisher=f"{SECRET}{session}-{publisher}", sequence=sequences[key])
        sequences[key] += len(data)
    return sequences


async def test_nothing_of_a_deleted_session_is_left_in_any_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await fill(engine, ["a", "b", "c"])
        await engine.set_config("a", f"{SECRET}config".encode(), epoch=(await publish(engine, "a", 1)).epoch)
        kept = await everything(engine, "b")
        assert files_hold(tmp_path, f"{SECRET}a")
        for session in ("a", "c"):
            assert await engine.delete_session(session)
        for session in ("a", "c"):
            await until_erased(tmp_path, f"{SECRET}{session}")
        assert await everything(engine, "b") == kept
        await engine.delete_session("b")
        await until_erased(tmp_path)
    assert rows_left(tmp_path) == 0


async def test_an_erasure_goes_on_after_a_restart_and_ids_are_not_given_away_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(erasing.Eraser, "wake", lambda self: None)  # the process ends before the first slice
        async with opened(tmp_path) as engine:
            await asyncio.sleep(0.2)
            await fill(engine, ["a"])
            await engine.delete_session("a")
            again = await publish(engine, "a", "new", publisher=f"{SECRET}a-p")
            assert (again.first_offset, again.duplicate) == (0, False)
            assert [data_of(e) for e in await everything(engine, "a")] == ["new"]
    assert files_hold(tmp_path, f"{SECRET}a-1")
    async with opened(tmp_path) as engine:
        await until_erased(tmp_path, f"{SECRET}a-1")
        assert [data_of(e) for e in await everything(engine, "a")] == ["new"]
        retried = await publish(engine, "a", "new", publisher=f"{SECRET}a-p")
        assert retried == Appended(0, 1, again.epoch, duplicate=True)


async def test_a_reader_that_takes_its_time_only_delays_the_erasure(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await fill(engine, ["a"])
        with closing(sqlite3.connect(tmp_path / "wakeline.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            await engine.delete_session("a")
            await asyncio.sleep(0.5)
            assert (await publish(engine, "b", 1)).first_offset == 0
            reader.execute("COMMIT")
        await until_erased(tmp_path)


class Tidings:
    """A few sessions that live and die among each other, on shared pages; what each holds is marked."""

    def __init__(self, engine: SqliteEngine, chance: random.Random) -> None:
        self.engine = engine
        self.chance = chance
        self.marks: dict[str, str] = {}
        self.dead: list[str] = []

    async def step(self) -> None:
        chance = self.chance
        if self.marks and chance.random() < 0.25:
            session = chance.choice(sorted(self.marks))
            state = await self.engine.state(session)
            if state is not None and chance.random() < 0.4:
                before = chance.randint(state.first_offset, state.next_offset)
                await self.engine.trim(session, before, epoch=state.epoch, limit=chance.randint(1, 100))
            elif state is not None:
                await self.engine.delete_session(session)
                self.dead.append(self.marks.pop(session))
            return
        if (len(self.marks) < 8 and chance.random() < 0.4) or not self.marks:
            name = f"s{len(self.marks) + len(self.dead)}"
            self.marks[name] = f"{SECRET}{name}-"
        for _ in range(chance.randint(1, 10)):
            session = chance.choice(sorted(self.marks))
            sizes = [chance.choice([0, 20, 200, 200, 900, 3000, 12_000]) for _ in range(chance.randint(1, 20))]
            data = [self.marks[session] + "x" * size for size in sizes]
            await publish(self.engine, session, *data, topic="t" * chance.choice([1, 30]))


@pytest.mark.parametrize("seed", range(times(2, 4)))
async def test_copies_that_pages_were_left_with_go_too(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[int] = []
    inner = scrubbing.fill

    def fill(connection: sqlite3.Connection, appends: Appends, gaps: list[scrubbing.Gap]) -> None:
        filled.append(len(gaps))
        inner(connection, appends, gaps)

    monkeypatch.setattr(erasing, "fill", fill)
    async with opened(tmp_path) as engine:
        tidings = Tidings(engine, random.Random(seed))
        for _ in range(80):
            await tidings.step()
        alive = [name for name in tidings.marks if await engine.state(name) is not None]
        kept = {name: await everything(engine, name) for name in alive}
        for mark in tidings.dead:
            await until_erased(tmp_path, mark)
        assert {name: await everything(engine, name) for name in alive} == kept
    with closing(sqlite3.connect(tmp_path / "wakeline.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert tidings.dead
    assert sum(filled) > 0, "there were copies to write over"


async def test_large_deletions_are_done_in_slices(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await publish(engine, "a", *range(1_700))
        await publish(engine, "a", *("x" * 700_000 for _ in range(4)))
        await asyncio.gather(*(publish(engine, "a", n, publisher=f"p{n}") for n in range(30)))
        commits = 0
        inner = engine._writer.submit

        async def counting(operation: object) -> object:
            nonlocal commits
            commits += operation is erasing.erase_slice
            return await inner(operation)  # type: ignore[arg-type]

        engine._writer.submit = counting  # type: ignore[method-assign]
        await engine.delete_session("a")
        async with asyncio.timeout(60):
            while rows_left(tmp_path):
                await asyncio.sleep(0.05)
        # 1700 small events, 4 that fill a slice by two, 30 publishers, the mark itself, and the end.
        assert commits >= 4 + 2 + 30 + 1


def version_1(directory: Path) -> None:
    """A file as the first version wrote it: two sessions, interleaved, one closed, with publishers; some of it deleted."""
    with closing(sqlite3.connect(directory / "wakeline.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN; {MIGRATIONS[0]}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; COMMIT;"
        )
        for number, name in enumerate(("a", "b"), start=1):
            connection.execute(
                "INSERT INTO sessions (id, name, epoch, created, closed) VALUES (?, ?, ?, ?, ?)",
                (number, name, name * 10, TIME, name == "b"),
            )
            connection.execute("INSERT INTO publishers VALUES (?, ?, 'p', 2)", (number, number))
            connection.execute("INSERT INTO publications VALUES (?, 0, 400, 0, 400)", (number,))
        for offset in range(400):
            for number, name in enumerate(("a", "b"), start=1):
                (event,) = batch(name, f"{SECRET}{name}" + "z" * (offset * 13 % 700)).events
                connection.execute(
                    "INSERT INTO events (session, offset, topic, body) VALUES (?, ?, ?, ?)",
                    (number, offset, event.topic, event.body),
                )


async def test_a_file_of_the_first_version_is_brought_along_whole(tmp_path: Path) -> None:
    version_1(tmp_path)
    async with opened(tmp_path) as engine:
        for name in ("a", "b"):
            state = await engine.state(name)
            assert state is not None
            events = await everything(engine, name)
            assert [e.offset for e in events] == list(range(400))
            assert all(data_of(e).rstrip("z") == f"{SECRET}{name}" for e in events)
            assert (state.epoch, state.created, state.closed) == (name * 10, TIME, name == "b")
            assert (state.first_offset, state.next_offset) == (0, 400)
            assert (state.config, state.deadline) == (b"", None)
            assert state.size == sum(len(e.body) for e in events)
            half = sum(len(e.body) for e in events[200:])
            assert await engine.offset_within(name, half, epoch=state.epoch) == 200
        retried = await publish(engine, "a", f"{SECRET}a", publisher="p", attempt=2)
        assert retried == Appended(0, 1, "a" * 10, duplicate=True)
        assert (await publish(engine, "a", "on", publisher="p", attempt=2, sequence=400)).first_offset == 400
        for name in ("a", "b"):
            await engine.delete_session(name)
        await until_erased(tmp_path)
    assert rows_left(tmp_path) == 0


async def test_a_trimmed_session_is_the_same_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        epoch = (await publish(engine, "a", *range(20), publisher="p")).epoch
        await engine.trim("a", 20, epoch=epoch)
    async with opened(tmp_path) as engine:
        state = await engine.state("a")
        assert state is not None
        assert (state.first_offset, state.next_offset, state.size) == (20, 20, 0)
        assert await publish(engine, "a", *range(20), publisher="p") == Appended(0, 20, epoch, duplicate=True)
        assert (await publish(engine, "a", 20, publisher="p", sequence=20)).first_offset == 20
