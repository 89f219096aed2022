"""The spool: events in a local file while the gateway is away, kept until it has them.

sources   the publishers; `base` is the sequence number of the event at position 0, NULL until the gateway has returned it
events    the events that wait, in the order of each source
refused   the events that the gateway refused: kept for inspection, never sent again
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from wakeline.errors import WakelineError
from wakeline.publisher.errors import SpoolError
from wakeline.publisher.frames import Identity

T = TypeVar("T")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY,
    session TEXT NOT NULL, publisher TEXT NOT NULL, attempt INTEGER NOT NULL,
    identity BLOB NOT NULL,
    base INTEGER,
    UNIQUE (session, publisher, attempt)
);
CREATE TABLE IF NOT EXISTS events (
    source INTEGER NOT NULL, position INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (source, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    id INTEGER PRIMARY KEY,
    session TEXT NOT NULL, publisher TEXT NOT NULL, attempt INTEGER NOT NULL,
    body BLOB NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL
);
"""
_APPLICATION_ID: Final = 0x77616B73  # "waks"
_PAGE_BYTES: Final = 3 * 1024 * 1024
_PAGE_EVENTS: Final = 500
_BUSY_SECONDS: Final = 10.0


class Page(msgspec.Struct, frozen=True):
    """Events of one source, in order.

    Attributes:
        position: The position of the first one.
        base: The sequence number of the event at position 0, if it is known.
        bodies: The events.
    """

    position: int
    base: int | None
    bodies: list[bytes]


class Spool:
    """One spool file; `Spool.at` returns the one object that this process has of it.

    Args:
        path: The file; the first use creates it if it does not exist.
    """

    _known: ClassVar[WeakValueDictionary[Path, Spool]] = WeakValueDictionary()
    _knowing = threading.Lock()
    _inherited: ClassVar[list[Spool]] = []

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @classmethod
    def at(cls, path: Path) -> Spool:
        """Return the spool of a file."""
        path = path.absolute()
        with cls._knowing:
            spool = cls._known.get(path)
            if spool is None:
                spool = cls._known[path] = cls(path)
            return spool

    @classmethod
    def forget(cls) -> None:
        """Drop all spools in a forked process, which opens its files again when it needs them.

        Their locks may be held by threads that do not exist in it, and SQLite's connections must be neither used nor
        closed after a fork, so the old objects are kept.
        """
        cls._inherited += cls._known.values()
        cls._known, cls._knowing = WeakValueDictionary(), threading.Lock()

    def __del__(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()

    async def do(self, work: Callable[..., T], *arguments: object) -> T:
        """Run one of the methods below in a thread, to its end even if the caller is cancelled."""
        return await asyncio.shield(asyncio.to_thread(work, *arguments))

    def add(self, identity: Identity, sequence: int | None, bodies: Sequence[bytes]) -> None:
        """Add events at the end of a source; they are on disk when it returns.

        Args:
            identity: The source.
            sequence: The sequence number of the first one, if it is known.
            bodies: The events.

        Raises:
            SpoolError: The file cannot be written.
        """
        with self._writing() as connection:
            found = _source(connection, identity)
            if found is None:
                row = (*identity.key, msgspec.json.encode(identity), sequence)
                insert = "INSERT INTO sources (session, publisher, attempt, identity, base) VALUES (?, ?, ?, ?, ?)"
                source, position = connection.execute(insert, row).lastrowid, 0
            else:
                source, base = found
                (last,) = connection.execute("SELECT max(position) FROM events WHERE source = ?", (source,)).fetchone()
                position = 0 if last is None else last + 1
                if base is not None and sequence is not None:
                    position = max(position, sequence - base)
            connection.executemany(
                "INSERT INTO events (source, position, body) VALUES (?, ?, ?)",
                [(source, position + at, body) for at, body in enumerate(bodies)],
            )

    def sources(self) -> list[Identity]:
        """Return the sources with events, by session, publisher and attempt."""
        with self._reading() as connection:
            rows = connection.execute("SELECT identity FROM sources ORDER BY session, publisher, attempt").fetchall()
            return [msgspec.json.decode(row[0], type=Identity) for row in rows]

    def waiting(self) -> int:
        """Return the number of events that wait."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])

    def refused(self) -> int:
        """Return the number of events that the gateway refused."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM refused").fetchone()[0])

    def page(self, identity: Identity) -> Page | None:
        """Return the next events of a source; None if it has none."""
        with self._reading() as connection:
            found = _source(connection, identity)
            if found is None:
                return None
            source, base = found
            bodies: list[bytes] = []
            first = size = 0
            rows = connection.execute("SELECT position, body FROM events WHERE source = ? ORDER BY position", (source,))
            for position, body in rows:
                size += len(body)
                if bodies and (size > _PAGE_BYTES or len(bodies) >= _PAGE_EVENTS or position != first + len(bodies)):
                    break
                first = first if bodies else position
                bodies.append(body)
            rows.close()
            return Page(first, base, bodies)

    def set_base(self, identity: Identity, base: int) -> None:
        """Store the sequence number of position 0, unless it is known; needed before the first send."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE sources SET base = ? WHERE session = ? AND publisher = ? AND attempt = ? AND base IS NULL",
                (base, *identity.key),
            )

    def set_identity(self, identity: Identity) -> None:
        """Store a source's identity with the epoch that the gateway has returned.

        Without the epoch a later open would create a deleted session again.
        """
        with self._writing() as connection:
            connection.execute(
                "UPDATE sources SET identity = ? WHERE session = ? AND publisher = ? AND attempt = ?",
                (msgspec.json.encode(identity), *identity.key),
            )

    def remove(self, identity: Identity, before: int) -> None:
        """Delete the events before a position, which the gateway has, and the source if it is empty."""
        with self._writing() as connection:
            if (found := _source(connection, identity)) is not None:
                connection.execute("DELETE FROM events WHERE source = ? AND position < ?", (found[0], before))
                self._forget_empty(connection, found[0])

    def refuse(self, identity: Identity, before: int | None, error: WakelineError) -> list[bytes]:
        """Put events aside that the gateway refused, and return them.

        Args:
            identity: The source.
            before: The position after the last of them; None is all of the source.
            error: The gateway's refusal.
        """
        with self._writing() as connection:
            found = _source(connection, identity)
            if found is None:
                return []
            end = (1 << 62) if before is None else before
            select = "SELECT body FROM events WHERE source = ? AND position < ? ORDER BY position"
            bodies = [row[0] for row in connection.execute(select, (found[0], end))]
            connection.executemany(
                "INSERT INTO refused (session, publisher, attempt, body, code, message) VALUES (?, ?, ?, ?, ?, ?)",
                [(*identity.key, body, error.code, error.message) for body in bodies],
            )
            connection.execute("DELETE FROM events WHERE source = ? AND position < ?", (found[0], end))
            if before is not None:
                # A refused event uses no sequence number: those of the events after it decrease.
                connection.execute("UPDATE sources SET base = base - ? WHERE id = ?", (len(bodies), found[0]))
            self._forget_empty(connection, found[0])
            return bodies

    @staticmethod
    def _forget_empty(connection: sqlite3.Connection, source: int) -> None:
        connection.execute(
            "DELETE FROM sources WHERE id = ? AND NOT EXISTS (SELECT 1 FROM events WHERE source = ?)", (source, source)
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _opened(self.path)
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Spool.forget)


def _source(connection: sqlite3.Connection, identity: Identity) -> tuple[int, int | None] | None:
    found: tuple[int, int | None] | None = connection.execute(
        "SELECT id, base FROM sources WHERE session = ? AND publisher = ? AND attempt = ?",
        identity.key,
    ).fetchone()
    return found


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        (kind,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if kind != _APPLICATION_ID and tables:
            raise sqlite3.DatabaseError("expected a spool or a new file, got another SQLite database")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
