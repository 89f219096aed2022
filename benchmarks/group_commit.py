"""Group commit as the SQLite engine does it: one thread owns the database, and no timer decides when it commits."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from queue import SimpleQueue

from benchmarks.layouts import Layout, Row

BODY = b'{"offset":%d,"topic":"delta","data":{"text":"%s"}}'
PAD = b"x" * 200
LARGEST_COMMIT = 5_000
WAL_LIMIT = 8_000  # pages where the checkpoint thread makes the write-ahead log start over

PUBLICATIONS = """CREATE TABLE publications (
    publisher INTEGER NOT NULL, first_sequence INTEGER NOT NULL, next_sequence INTEGER NOT NULL,
    first_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (publisher, first_sequence)) STRICT, WITHOUT ROWID"""
UPSERT = """INSERT INTO publications VALUES (?, ?, ?, ?, ?) ON CONFLICT (publisher, first_sequence)
    DO UPDATE SET next_sequence = excluded.next_sequence, next_offset = excluded.next_offset"""

Append = tuple[int, int, "asyncio.Future[None]"]  # session, publisher, answer


def body_of(offset: int) -> bytes:
    """One event of 200 bytes."""
    return (BODY % (offset, PAD))[:197] + b'"}}'


def connect(path: Path, autocheckpoint: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
    return connection


def stretch_wal(connection: sqlite3.Connection) -> None:
    """Gives the write-ahead log the size it has after its first turn: later ones overwrite it, which is cheaper."""
    connection.execute("CREATE TABLE filler (bytes BLOB)")
    connection.execute("INSERT INTO filler VALUES (zeroblob(42000000))")
    connection.execute("PRAGMA wal_checkpoint(RESTART)")


class Writer:
    """The one thread that writes. Every append that waits when a commit ends goes into the next commit."""

    def __init__(self, path: Path, layout: Layout, autocheckpoint: int, idempotent: bool) -> None:
        self.queue: SimpleQueue[Append | None] = SimpleQueue()
        self.commits = 0
        self.appends = 0
        self._layout, self._idempotent = layout, idempotent
        self._connection = connect(path, autocheckpoint)
        stretch_wal(self._connection)
        self._offsets = [next_ for (next_,) in self._connection.execute("SELECT next FROM offsets ORDER BY session")]
        self._publications: dict[int, list[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._between_commits = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._write)]
        if autocheckpoint == 0:
            self._threads.append(threading.Thread(target=self._checkpoint, args=(path,)))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self.queue.put(None)
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def _write(self) -> None:
        while True:
            batch = [self.queue.get()]
            batch += [self.queue.get() for _ in range(min(self.queue.qsize(), LARGEST_COMMIT))]
            appends = [append for append in batch if append is not None]
            if appends:
                with self._between_commits:
                    self._commit(appends)
                self._loop.call_soon_threadsafe(resolve, appends)
            if len(appends) < len(batch):
                return

    def _commit(self, appends: list[Append]) -> None:
        rows: list[Row] = []
        published: list[tuple[int, ...]] = []
        for session, publisher, _ in appends:
            offset = self._offsets[session]
            self._offsets[session] = offset + 1
            rows.append((session, offset, body_of(offset)))
            if self._idempotent:
                published.append(self._publish(publisher, offset))
        self._connection.execute("BEGIN IMMEDIATE")
        self._layout.insert(self._connection, rows)
        if published:
            self._connection.executemany(UPSERT, published)
        self._connection.execute("COMMIT")
        self.commits += 1
        self.appends += len(appends)

    def _publish(self, publisher: int, offset: int) -> tuple[int, ...]:
        """The row that tells which offsets a publisher's sequence got: stretched while its events lie side by side."""
        row = self._publications.get(publisher)
        if row is None:
            row = self._publications[publisher] = [0, 0, offset, offset]
        elif row[3] != offset:  # another publisher wrote between: a new row begins
            row[0], row[2] = row[1], offset
        row[1] += 1
        row[3] = offset + 1
        return (publisher, *row)

    def _checkpoint(self, path: Path) -> None:
        """Copies the write-ahead log into the database ten times a second, outside the writer's thread."""
        connection = connect(path, 0)
        while not self._ended.wait(0.1):
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages >= WAL_LIMIT:
                # The bulk is copied already: the writer waits only for the frames of the last moment.
                with self._between_commits:
                    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        connection.close()


def resolve(appends: list[Append]) -> None:
    for _, _, answer in appends:
        answer.set_result(None)
