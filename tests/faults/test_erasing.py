"""What was deleted is in no file, whatever happened in between; and the file of an older version is brought along whole."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.gateways import GatewayProcess
from tests.soak import times
from tests.support import TIME, Served, batch, data_of, everything, publish
from wakeline.events import milliseconds
from wakeline.gateway.log import Appended, Record
from wakeline.gateway.log.engines.sqlite import SqliteEngine, erasing
from wakeline.gateway.log.engines.sqlite.schema import APPLICATION_ID, MIGRATIONS
from wakeline.gateway.log.engines.sqlite.writer import Operation

SECRET = "x7Qr-marker-"
WITHIN = 0.2  # seconds: the file is rebuilt soon after each deletion


@asynccontextmanager
async def opened(directory: Path, erase_within: float = WITHIN) -> AsyncIterator[SqliteEngine]:
    engine = SqliteEngine(directory, erase_within=erase_within)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


def files_hold(directory: Path, *texts: str) -> list[tuple[str, str]]:
    """Which of the texts are in which files; a text may be cut by the end of a page."""
    files = {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
    return [(name, text) for name, content in files.items() for text in texts if text.encode() in content]


async def until_erased(directory: Path, *texts: str) -> None:
    """Until nothing is pending; then the files must not hold the texts."""
    async with asyncio.timeout(60):
        with closing(sqlite3.connect(directory / "wakeline.db")) as connection:
            while connection.execute("SELECT 1 FROM erasing").fetchone():
                await asyncio.sleep(0.02)
    assert files_hold(directory, *texts or (SECRET,)) == []


def rows_left(directory: Path, *tables: str) -> int:
    tables = tables or ("erasing", "events", "publishers", "publications", "sessions")
    with closing(sqlite3.connect(directory / "wakeline.db")) as connection:
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
        await engine.configure("a", epoch=(await publish(engine, "a", 1)).epoch, config=f"{SECRET}config".encode())
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
            async with asyncio.timeout(60):
                while rows_left(tmp_path, "erasing WHERE session = -1") != 1:  # rebuilt, and the log cannot be emptied
                    await asyncio.sleep(0.02)
            assert (await publish(engine, "b", 1)).first_offset == 0
            assert files_hold(tmp_path, SECRET)
            reader.execute("COMMIT")
        await until_erased(tmp_path)


class Tidings:
    """Sessions of random shape that live and die among each other, on shared pages, in all that is kept of them."""

    def __init__(self, served: Served, chance: random.Random) -> None:
        self.served = served
        self.chance = chance
        self.alive: dict[str, str] = {}
        self.dead: list[str] = []

    def text(self, mark: str, longest: int) -> str:
        """A mark and a random rest."""
        return (mark + "~" * self.chance.choice([0, 3, 20, 60, longest]))[:longest]

    async def step(self) -> None:
        """A session begins, goes on, is read by devices, or is deleted."""
        if len(self.alive) > 3 and self.chance.random() < 0.2:
            await self.delete(self.chance.choice(sorted(self.alive)))
            return
        if (len(self.alive) < 8 and self.chance.random() < 0.5) or not self.alive:
            mark = f"{SECRET}{len(self.alive) + len(self.dead):04d}-{self.chance.randbytes(4).hex()}"
            self.alive[self.text(mark, 500)] = mark
            await self.use(list(self.alive)[-1], mark)
        for session in self.chance.choices(sorted(self.alive), k=2):
            await self.use(session, self.alive[session])

    async def use(self, session: str, mark: str) -> None:
        chance, path = self.chance, f"/v1/sessions/{session}"
        events: list[dict[str, object]] = []
        for _ in range(chance.randint(1, 12)):
            data = mark + "x" * chance.choice([0, 20, 200, 900, 3000, 12_000])
            event: dict[str, object] = {"topic": self.text(mark, 200), "data": data}
            kinds: list[dict[str, object]] = [
                {},
                {"key": self.text(mark, 200)},
                {"message": {"id": mark, "op": "text"}},
            ]
            events.append(event | chance.choice(kinds))
        await self.served.publish(session, *events, publisher=self.text(mark, 250), attempt="1", sequence="0")
        await self.served.publish(session, *events)
        sequence = {"Stream-Seq": f"{time.monotonic_ns():020d}{mark}"}
        status, _ = await self.served.call("POST", f"/v1/stream/{session}", json=[mark], headers=sequence)
        assert status == 204
        _, state = await self.served.call("GET", path)
        for _ in range(chance.randint(0, 5)):
            device = self.text(mark + chance.randbytes(2).hex(), 120)
            status, _ = await self.served.call("PUT", f"{path}/devices/{device}", json={"seen": state["cursor"]})
            assert status == 200

    async def delete(self, session: str) -> None:
        status, _ = await self.served.call("DELETE", f"/v1/sessions/{session}")
        assert status in (204, 404)  # 404: the gateway was killed before it answered
        self.dead.append(self.alive.pop(session))


def erasing_gateway(directory: Path, within: float = 1.0) -> GatewayProcess:
    return GatewayProcess(directory, environment={"WAKELINE_ERASE_WITHIN": str(within)})


async def erased(served: Served) -> None:
    """Until the gateway says that nothing is pending."""
    async with asyncio.timeout(60):
        while await served.metric("wakeline_erasure_pending_seconds"):
            await asyncio.sleep(0.05)


class Lives:
    """Hundreds of sessions of random shape, among each other on shared pages; what is kept of each holds its mark."""

    def __init__(self, engine: SqliteEngine, chance: random.Random) -> None:
        self.engine = engine
        self.chance = chance
        self.alive: list[str] = []
        self.dead: list[str] = []

    async def one(self) -> None:
        """A session from its first event to its deletion, or to where it stays."""
        chance, engine = self.chance, self.engine
        mark = f"{SECRET}{len(self.alive) + len(self.dead):04d}-"
        stays = chance.random() < 0.3
        (self.alive if stays else self.dead).append(mark)
        name, sequences = self.text(mark, 500), {self.text(mark, 250): 0, self.text(f"{mark}q", 250): 0}
        for _ in range(chance.randint(1, 8)):
            publisher = chance.choice(list(sequences))
            data = [mark + "x" * chance.choice([0, 20, 90, 200, 900, 3000]) for _ in range(chance.randint(1, 8))]
            topic = self.text(mark, 200)
            await publish(engine, name, *data, publisher=publisher, sequence=sequences[publisher], topic=topic)
            sequences[publisher] += len(data)
        state = await engine.state(name)
        assert state is not None
        await engine.configure(name, epoch=state.epoch, config=self.text(mark, 300).encode())
        records = [await self.grow(f"{part}/{name}", mark) for part in chance.sample("abcd", k=chance.randint(1, 3))]
        if not stays:
            await engine.delete_session(name)
            for record in records:
                await engine.delete_record(record.key, revision=record.revision, erase=True)

    async def grow(self, key: str, mark: str) -> Record:
        """A record that is written again and again, as positions are."""
        record = Record(key, b"", 0)
        for most in (1, 10, 60):
            value = self.text(mark, 400).encode() * self.chance.randint(1, most)
            record = await self.engine.put_record(key, value, revision=record.revision)
        return record

    def text(self, mark: str, longest: int) -> str:
        """A mark, and a rest of random length."""
        return (mark + "~" * self.chance.choice([0, 3, 20, 60, longest]))[:longest]


@pytest.mark.parametrize("seed", range(times(1, 6)))
async def test_no_byte_of_deleted_sessions_is_in_any_file_after_the_promised_time(tmp_path: Path, seed: int) -> None:
    engine = SqliteEngine(tmp_path, durability="process", erase_within=1.0)
    await engine.open()
    try:
        lives = Lives(engine, random.Random(seed))
        for _ in range(times(3, 20)):
            await asyncio.gather(*(lives.one() for _ in range(100)))
        async with asyncio.timeout(60):
            while engine.erasure_pending():
                await asyncio.gather(*(publish(engine, "other", "y" * 500) for _ in range(10)))
                await asyncio.sleep(0.01)
        assert files_hold(tmp_path, *lives.dead) == []
        assert all(files_hold(tmp_path, mark) for mark in lives.alive)
    finally:
        await engine.close()


async def test_a_gateway_that_is_killed_again_and_again_erases_all_the_same(tmp_path: Path) -> None:
    gateway, chance = erasing_gateway(tmp_path / "data", within=0.3), random.Random(7)
    tidings: Tidings | None = None
    try:
        for _ in range(times(3, 10)):
            await gateway.start()
            async with Served(gateway.url) as served:
                tidings = tidings or Tidings(served, chance)
                tidings.served = served
                for _ in range(2):
                    await tidings.step()
                await tidings.delete(sorted(tidings.alive)[0])
                await asyncio.sleep(chance.choice([0, 0.1, 0.25, 0.4]))  # in a slice, in a rebuild, or in between
            await gateway.kill()
        await gateway.start()
        async with Served(gateway.url) as served:
            await erased(served)
        assert tidings is not None
        assert files_hold(tmp_path / "data", *tidings.dead) == []
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()
    with closing(sqlite3.connect(tmp_path / "data" / "wakeline.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_rebuild_waits_until_it_is_due_and_is_done_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "REBUILD_AT", 0.1)
    async with opened(tmp_path, erase_within=80) as engine:
        await fill(engine, ["a", "b", "c"])
        kept = await everything(engine, "b")
        deleted = time.time()
        for session in ("a", "c"):
            await engine.delete_session(session)
            assert await engine.state(session) is None
        async with asyncio.timeout(60):
            while rows_left(tmp_path, "erasing") != 1:  # the rows are gone, and the mark is left
                await asyncio.sleep(0.01)
        assert 0 < engine.erasure_pending() <= 80
        await until_erased(tmp_path, f"{SECRET}a", f"{SECRET}c")
        assert time.time() - deleted >= 8
        assert await everything(engine, "b") == kept
        async with asyncio.timeout(60):
            while engine.erasure_pending():
                await asyncio.sleep(0.01)


async def test_a_disk_without_room_delays_the_rebuild_and_is_reported_as_overdue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = shutil.disk_usage(tmp_path)._replace(free=1000)
    async with opened(tmp_path) as engine:
        await fill(engine, ["a"])
        with monkeypatch.context() as full, capture_logs() as logs:
            full.setattr(shutil, "disk_usage", lambda _: room)
            await engine.delete_session("a")
            async with asyncio.timeout(60):
                while engine.erasure_pending() <= 3 * WITHIN:
                    await publish(engine, "b", 1)  # others are not disturbed
                    await asyncio.sleep(0.02)
        assert [entry["event"] for entry in logs] == ["erasure has to wait"]
        await until_erased(tmp_path)


async def test_closing_stops_a_rebuild_and_the_next_process_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_PROGRESS_STEPS", 1)
    begun = threading.Event()
    inner = erasing.rebuild

    def rebuild(*arguments: Any, stop: threading.Event, **more: Any) -> None:
        begun.set()
        assert stop.wait(60)
        inner(*arguments, stop=stop, **more)

    async with opened(tmp_path) as engine:
        await fill(engine, ["a", "b"])
        monkeypatch.setattr(erasing, "rebuild", rebuild)
        await engine.delete_session("a")
        assert await asyncio.to_thread(begun.wait, 60)
        kept = asyncio.create_task(publish(engine, "b", "kept"))
        await asyncio.sleep(0)
    assert (await kept).first_offset > 0
    assert rows_left(tmp_path, "erasing") == 1
    monkeypatch.setattr(erasing, "rebuild", inner)
    async with opened(tmp_path):
        await until_erased(tmp_path, f"{SECRET}a")


async def test_large_deletions_are_done_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "SLICE_SECONDS", 0)
    async with opened(tmp_path) as engine:
        await publish(engine, "a", *range(1_700))
        await publish(engine, "a", *("x" * 700_000 for _ in range(4)))
        await asyncio.gather(*(publish(engine, "a", n, publisher=f"p{n}") for n in range(30)))
        commits = 0
        inner = engine._writer.submit

        def counting(operation: Operation[Any], **how: bool) -> asyncio.Future[Any]:
            nonlocal commits
            commits += operation is erasing.erase_slice
            return inner(operation, **how)

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
            accepted = milliseconds(datetime.fromisoformat(TIME))
            assert await engine.offset_at(name, accepted, epoch=state.epoch) == 0
            assert await engine.offset_at(name, accepted + 1, epoch=state.epoch) == 400
        retried = await publish(engine, "a", f"{SECRET}a", publisher="p", attempt=2)
        assert retried == Appended(0, 1, "a" * 10, duplicate=True)
        assert (await publish(engine, "a", "on", publisher="p", attempt=2, sequence=400)).first_offset == 400
        for name in ("a", "b"):
            await engine.delete_session(name)
        await until_erased(tmp_path)
    assert rows_left(tmp_path) == 0


async def test_free_space_of_an_earlier_version_is_erased_in_time(tmp_path: Path) -> None:
    version_1(tmp_path)
    with closing(sqlite3.connect(tmp_path / "wakeline.db", isolation_level=None)) as connection:
        for script in MIGRATIONS[1:4]:
            connection.executescript(script)
        connection.execute("PRAGMA user_version = 4")
        connection.execute("DELETE FROM sessions WHERE name = 'a'")  # and of another nothing but copies is left
        connection.execute("INSERT INTO erasing VALUES (1)")
    async with opened(tmp_path) as engine:
        assert len(await everything(engine, "b")) == 400
        await until_erased(tmp_path, f"{SECRET}a")
        assert len(await everything(engine, "b")) == 400
    assert rows_left(tmp_path, "erasing") == 0


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
