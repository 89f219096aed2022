"""`Engine` on one SQLite file: appends go to the writer thread, reads to a few reader threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from wakeline.errors import RecordConflictError, SessionNotFoundError, StorageFailedError
from wakeline.events import Event
from wakeline.gateway.engines.sqlite.appends import Appends
from wakeline.gateway.engines.sqlite.schema import DirectoryLock, connect_reader, connect_writer
from wakeline.gateway.engines.sqlite.writer import Writer
from wakeline.gateway.log import PAGE_BYTES, Append, Appended, Engine, Page, Position, Record, SessionState

_READERS: Final = 3
_STATE: Final = (
    "SELECT name, epoch, (SELECT coalesce(max(offset) + 1, 0) FROM events WHERE session = sessions.id), created, closed"
    " FROM sessions"
)
_POSITION: Final = (
    "SELECT attempt, max(next_sequence) FROM publishers JOIN publications ON publisher = publishers.id"
    " WHERE session = (SELECT id FROM sessions WHERE name = ?) AND name = ? GROUP BY publishers.id"
)
T = TypeVar("T")


class SqliteEngine(Engine):
    """Keeps sessions in `directory/wakeline.db`.

    Args:
        directory: The data directory; created if missing, and this process's alone while the engine is open.
        durability: `full` (default): an acknowledged append survives a power cut. `process`: a crash of the process only.
    """

    def __init__(self, directory: Path, *, durability: Literal["full", "process"] = "full") -> None:
        super().__init__()
        self._directory = directory
        self._path = directory / "wakeline.db"
        self._lock = DirectoryLock(directory)
        self._writer = Writer(lambda: connect_writer(self._path, durability=durability), self._committed)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise StorageFailedError(f"expected a writable directory at {self._directory}, got: {error}") from error
        try:
            self._writer.start()
        except BaseException:
            self._lock.release()
            raise
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="wakeline-reader")

    async def close(self) -> None:
        await self._writer.stop()
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
            self._readers = None
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._lock.release()

    async def append(self, append: Append) -> Appended:
        answer: Appended = await self._writer.submit(lambda _, appends: appends.append(append))
        return answer

    async def read(
        self, session: str, offset: int, *, before: int, limit: int = 1000, topics: Container[str] | None = None
    ) -> Page:
        return await self._reading(lambda connection: _read(connection, session, offset, before, limit, topics))

    async def state(self, session: str) -> SessionState | None:
        rows = await self._reading(lambda c: c.execute(f"{_STATE} WHERE name = ?", (session,)).fetchall())
        return _state(rows[0]) if rows else None

    async def position(self, session: str, publisher: str) -> Position | None:
        row = await self._reading(lambda c: c.execute(_POSITION, (session, publisher)).fetchone())
        return Position(*row) if row else None

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[SessionState]:
        query = f"{_STATE} WHERE name > ? ORDER BY name LIMIT ?"
        rows = await self._reading(lambda c: c.execute(query, (after, limit)).fetchall())
        return [_state(row) for row in rows]

    async def close_session(self, session: str) -> None:
        def close(connection: sqlite3.Connection, appends: Appends) -> None:
            appends.flush()
            if connection.execute("UPDATE sessions SET closed = 1 WHERE name = ?", (session,)).rowcount == 0:
                raise SessionNotFoundError(f"there is no session {session!r}")
            appends.forget_session(session)

        await self._writer.submit(close)

    async def delete_session(self, session: str) -> bool:
        def delete(connection: sqlite3.Connection, appends: Appends) -> bool:
            appends.flush()
            row = connection.execute("DELETE FROM sessions WHERE name = ? RETURNING id", (session,)).fetchone()
            if row is None:
                return False
            connection.execute(
                "DELETE FROM publications WHERE publisher IN (SELECT id FROM publishers WHERE session = ?)", row
            )
            connection.execute("DELETE FROM publishers WHERE session = ?", row)
            connection.execute("DELETE FROM events WHERE session = ?", row)
            appends.forget_session(session)
            return True

        deleted: bool = await self._writer.submit(delete)
        return deleted

    async def get_record(self, key: str) -> Record | None:
        query = "SELECT key, value, revision FROM records WHERE key = ?"
        row = await self._reading(lambda c: c.execute(query, (key,)).fetchone())
        return Record(*row) if row else None

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        def put(connection: sqlite3.Connection, _: Appends) -> Record:
            _check_revision(connection, key, revision)
            statement = "INSERT OR REPLACE INTO records (key, value) VALUES (?, ?) RETURNING revision"
            (now,) = connection.execute(statement, (key, value)).fetchone()
            return Record(key, value, now)

        record: Record = await self._writer.submit(put)
        return record

    async def delete_record(self, key: str, *, revision: int) -> None:
        def delete(connection: sqlite3.Connection, _: Appends) -> None:
            _check_revision(connection, key, revision)
            if connection.execute("DELETE FROM records WHERE key = ?", (key,)).rowcount == 0:
                raise RecordConflictError(f"expected a record under {key!r}, there is none")

        await self._writer.submit(delete)

    async def records(self, prefix: str) -> list[Record]:
        query = "SELECT key, value, revision FROM records WHERE substr(key, 1, ?) = ? ORDER BY key"
        rows = await self._reading(lambda c: c.execute(query, (len(prefix), prefix)).fetchall())
        return [Record(*row) for row in rows]

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
            return query(connection)
        except sqlite3.Error as error:
            raise StorageFailedError(f"the log cannot be read: {error}") from error


def _read(
    connection: sqlite3.Connection,
    session: str,
    offset: int,
    before: int,
    limit: int,
    topics: Container[str] | None,
) -> Page:
    row = connection.execute("SELECT id FROM sessions WHERE name = ?", (session,)).fetchone()
    if row is None:
        raise SessionNotFoundError(f"there is no session {session!r}")
    rows = connection.execute(
        "SELECT offset, topic, body FROM events WHERE session = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?",
        (row[0], offset, before, limit),
    )
    events: list[Event] = []
    size = 0
    for at, topic, body in rows:
        if at != offset:
            raise StorageFailedError(f"expected offset {offset} of {session!r}, the file has {at}: it is damaged")
        offset = at + 1
        if topics is None or topic in topics:
            events.append(Event(at, topic, body))
        size += len(body)
        if size >= PAGE_BYTES:
            break
    return Page(events, offset)


def _state(row: tuple[str, str, int, str, int]) -> SessionState:
    return SessionState(row[0], row[1], row[2], row[3], bool(row[4]))


def _check_revision(connection: sqlite3.Connection, key: str, revision: int) -> None:
    row = connection.execute("SELECT revision FROM records WHERE key = ?", (key,)).fetchone()
    now = row[0] if row else 0
    if now != revision:
        raise RecordConflictError(f"expected {key!r} at revision {revision}, it is at {now}")
