"""The log's ports on one SQLite file: a writer thread, and a few reader threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from wakeline.errors import SessionImportingError, StorageFailedError
from wakeline.gateway.log.engines.sqlite import portable, queries
from wakeline.gateway.log.engines.sqlite.appends import Appends
from wakeline.gateway.log.engines.sqlite.erasing import Eraser, mark_removed, remove_oldest
from wakeline.gateway.log.engines.sqlite.published import published
from wakeline.gateway.log.engines.sqlite.renewal import renew
from wakeline.gateway.log.engines.sqlite.schema import DirectoryLock, connect_reader, connect_writer
from wakeline.gateway.log.engines.sqlite.upkeep import DATABASE, LOCK, Upkeep, is_full
from wakeline.gateway.log.engines.sqlite.writer import Writer
from wakeline.gateway.log.names import name_ranges
from wakeline.gateway.log.outcomes import each_decided
from wakeline.gateway.log.portable import Portable, StoredPublisher
from wakeline.gateway.log.ports import Engine
from wakeline.gateway.log.store import Carry, Restorable
from wakeline.gateway.log.values import (
    Append,
    Appended,
    NewSession,
    Opened,
    Outcome,
    Page,
    Publication,
    Published,
    Record,
    SessionState,
    check_record,
    check_revision,
)

_READERS: Final = 3
T = TypeVar("T")


class SqliteEngine(Engine, Restorable, Portable):
    """Stores sessions in `directory/wakeline.db`.

    Args:
        directory: The data directory; created if missing, and locked for this process while the engine is open.
        durability: With `full` (default) an acknowledged append survives a power cut, with `process` only a crash of the
            process.
        erase_within: Seconds after a deletion by which the files contain no deleted data. Default: 7 days.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durability: Literal["full", "process"] = "full",
        erase_within: float = 7 * 86_400.0,
    ) -> None:
        super().__init__()
        self._directory = directory
        self.name = f"SQLite in {directory}"
        self._path = directory / DATABASE
        self._lock = DirectoryLock(directory / LOCK)
        self._upkeep = Upkeep(directory)
        connect = partial(connect_writer, self._path, durability=durability)
        self._writer = Writer(connect, self._upkeep, self.feed.announce_all, self._announce_lost, self.counts)
        self._eraser = Eraser(self._writer, self._path, erase_within)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            if is_full(error):
                raise self._upkeep.no_room(error) from error
            raise StorageFailedError(
                f"expected a writable directory at {self._directory}, got: {error}",
                hint="Give --data a directory that this user may write to; it is created if it is missing.",
            ) from error
        try:
            self._writer.start()
        except BaseException:
            self._upkeep.close()
            self._lock.release()
            raise
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="wakeline-reader")
        self._eraser.start()

    async def close(self) -> None:
        await self._eraser.stop()
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
            self._readers = None
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        # Last: the connection that closes last checkpoints and removes the write-ahead log, which a reader cannot do.
        await self._writer.stop()
        self._upkeep.close()
        self._lock.release()

    def health(self) -> str:
        return self._writer.health()

    def log_bytes(self) -> int:
        return self._upkeep.log_bytes()

    @property
    def restored(self) -> bool:
        return self._upkeep.generation.restored

    async def renew(self, carry: Carry) -> None:
        await self._writer.submit(partial(renew, generation=self._upkeep.generation, carry=carry))
        self._upkeep.generation.restored = False

    async def append(self, append: Append) -> Appended:
        return await self._writer.submit(lambda _, appends: appends.append(append), grows=True)

    def append_each(self, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        return self._writer.submit(lambda _, rows: each_decided(rows.append, appends), grows=True)

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        return await self._writer.submit(lambda _, appends: appends.open(session, publication, epoch))

    async def read(
        self,
        session: str,
        offset: int,
        *,
        before: int,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        return await self._reading(lambda c: queries.read(c, session, offset, before, limit, topics, epoch))

    async def read_back(
        self,
        session: str,
        before: int,
        *,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        return await self._reading(lambda c: queries.read_back(c, session, before, limit, topics, epoch))

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        return await self._reading(lambda c: queries.state(c, session, publisher))

    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        return await self._reading(lambda c: queries.sessions(c, after, limit, name_ranges(within)))

    async def newest(
        self, *, before: tuple[str, str] | None, limit: int, within: Sequence[str], contains: str
    ) -> list[SessionState]:
        return await self._reading(lambda c: queries.newest(c, before, limit, name_ranges(within), contains))

    async def create_session(self, new: NewSession) -> tuple[SessionState, bool]:
        session = new.session

        def create(connection: sqlite3.Connection, appends: Appends) -> tuple[SessionState, bool]:
            appends.flush()
            there = connection.execute(f"{queries.STATE} WHERE name = ? AND NOT draft", (session,)).fetchone()
            if there is not None:
                return queries.parse_state(there), False
            if connection.execute("SELECT 1 FROM sessions WHERE name = ?", (session,)).fetchone():
                raise SessionImportingError.of(session)
            appends.create(new)
            appends.flush()
            row = connection.execute(f"{queries.STATE} WHERE name = ?", (session,)).fetchone()
            state = queries.parse_state(row)
            if not new.draft:
                appends.changed(session, state.epoch, "configured")
            return state, True

        return await self._writer.submit(create, grows=True)

    async def configure(
        self,
        session: str,
        *,
        epoch: str,
        config: bytes | UnsetType = UNSET,
        deadline: float | UnsetType | None = UNSET,
        finish: bool = False,
    ) -> None:
        def change(connection: sqlite3.Connection, appends: Appends) -> None:
            found, _ = queries.find(connection, session, epoch)
            (draft,) = connection.execute(
                "UPDATE sessions SET config = coalesce(?, config), deadline = iif(?, ?, deadline), draft = draft AND NOT ?"
                " WHERE id = ? RETURNING draft",
                (
                    None if config is UNSET else config,
                    deadline is not UNSET,
                    None if deadline is UNSET else deadline,
                    finish,
                    found,
                ),
            ).fetchone()
            if finish:
                appends.flush()
                appends.forget_session(session)
            if not draft and (finish or config is not UNSET):
                appends.changed(session, epoch, "configured")

        await self._writer.submit(change)

    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        query = "SELECT name, epoch FROM sessions WHERE deadline <= ? ORDER BY deadline LIMIT ?"
        return await self._reading(lambda c: c.execute(query, (now, limit)).fetchall())

    async def delete_session(self, session: str, *, epoch: str | None = None, draft: bool = False) -> bool:
        def delete(connection: sqlite3.Connection, appends: Appends) -> bool:
            row = connection.execute("SELECT id, epoch, draft FROM sessions WHERE name = ?", (session,)).fetchone()
            if row is None or epoch not in (None, row[1]) or row[2] != draft:
                return False
            appends.flush()
            connection.execute("INSERT INTO erasing VALUES (?, ?)", (row[0], time.time()))
            connection.execute("DELETE FROM sessions WHERE id = ?", (row[0],))
            appends.forget_session(session)
            if not draft:
                appends.changed(session, row[1], "deleted")
            return True

        try:
            return await self._writer.submit(delete)
        finally:  # even if the caller was cancelled, the session is deleted
            self._eraser.wake()

    async def forget_publisher(self, session: str, publisher: str, *, epoch: str) -> None:
        def forget(connection: sqlite3.Connection, appends: Appends) -> None:
            queries.find(connection, session, epoch)
            appends.forget_publisher(session, publisher)

        await self._writer.submit(forget)

    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        def trim(connection: sqlite3.Connection, appends: Appends) -> int:
            found, first_offset = queries.find(connection, session, epoch)
            appends.flush()
            kept = remove_oldest(connection, found, before, limit)
            if kept is None:
                return first_offset
            connection.execute("UPDATE sessions SET first_offset = ? WHERE id = ?", (kept, found))
            appends.stretches.trimmed(found, kept)
            appends.changed(session, epoch, "trimmed")
            return kept

        return await self._writer.submit(trim)

    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        return await self._reading(lambda c: queries.offset_within(c, session, size, epoch))

    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        return await self._reading(lambda c: queries.offset_at(c, session, moment, epoch))

    async def published(self, session: str, offset: int, *, epoch: str) -> Published | None:
        return await self._reading(lambda c: published(c, session, offset, epoch))

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        query = "SELECT key, value, revision FROM records WHERE key IN (SELECT value FROM json_each(?))"
        asked = msgspec.json.encode(keys).decode()
        rows = await self._reading(lambda c: c.execute(query, (asked,)).fetchall())
        return {row[0]: Record(*row) for row in rows}

    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        check_record(key, value)

        def change(connection: sqlite3.Connection, _: Appends) -> int:
            row = connection.execute("SELECT revision FROM records WHERE key = ?", (key,)).fetchone()
            check_revision(key, value, revision, row[0] if row else 0)
            if value is not None:
                statement = "INSERT OR REPLACE INTO records (key, value) VALUES (?, ?) RETURNING revision"
                (now,) = connection.execute(statement, (key, value)).fetchone()
                return int(now)
            connection.execute("DELETE FROM records WHERE key = ?", (key,))
            if erase:
                mark_removed(connection, time.time())
            return 0

        try:
            return await self._writer.submit(change)
        finally:
            if erase:
                self._eraser.wake()

    async def records_after(self, key: str, *, prefix: str = "", limit: int | None = 100) -> list[Record]:
        return await self._reading(lambda c: queries.records_after(c, key, prefix, limit))

    async def count_records(self, prefix: str) -> tuple[int, int]:
        return await self._reading(lambda c: queries.count_records(c, prefix))

    def erasure_pending(self) -> float:
        return self._eraser.pending

    async def publishers(self, session: str, *, epoch: str, after: str = "", limit: int = 100) -> list[StoredPublisher]:
        return await self._reading(lambda c: portable.publishers(c, session, epoch, after, limit))

    async def order(self, session: str, *, epoch: str) -> str:
        return await self._reading(lambda c: portable.order(c, session, epoch))

    async def add_publishers(self, session: str, publishers: Sequence[StoredPublisher], *, epoch: str) -> None:
        await self._directly(session, lambda c: portable.add_publishers(c, session, publishers, epoch=epoch))

    async def adopt(self, session: str, state: SessionState, order: str, *, epoch: str) -> None:
        await self._directly(session, lambda c: portable.adopt(c, session, state, order, epoch=epoch))

    async def _directly(self, session: str, change: Callable[[sqlite3.Connection], None]) -> None:
        """Change a session's rows in the writer's transaction; the cache forgets the session."""

        def run(connection: sqlite3.Connection, appends: Appends) -> None:
            appends.flush()
            appends.forget_session(session)
            change(connection)

        await self._writer.submit(run, grows=True)

    async def _reading(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._readers is None:
            raise StorageFailedError("expected an open store, it is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._run, query)

    def _run(self, query: Callable[[sqlite3.Connection], Any]) -> Any:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = connect_reader(self._path)
                self._connections.append(connection)
            connection.execute("BEGIN")  # one snapshot for all statements: a row must not vanish between two of them
            with connection:
                return query(connection)
        except sqlite3.Error as error:
            raise StorageFailedError(
                f"the log cannot be read: {error}", hint="Check the disk and the data directory, then read again."
            ) from error
