"""Erases deleted sessions: their rows in slices, and SQLite's copies of them by a rebuild.

A deletion removes the session's row at once, so that it is gone for every reader, and puts its id into `erasing`. Its events
and publishers follow in slices, each a short transaction, so that an append waits for one slice at most. `secure_delete`
overwrites removed rows. SQLite also leaves copies of rows in free space when it moves rows between pages, and only `VACUUM`
certainly removes those: it writes every page again from the existing rows. It stops all appends while it runs, so it runs once
for all deletions within some time (`erase_within`). Then the write-ahead log, which has the old pages, is checkpointed and
truncated.

The table `erasing` records the pending steps, so that erasure continues after a restart: a row for each session whose rows
still exist, `REMOVED` for deletions whose rows are gone, and `REBUILT` from the rebuild until the write-ahead log is empty.
`since` is the time of the oldest deletion, in unix time.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import sqlite3
import threading
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from wakeline.background import cancel_all
from wakeline.errors import StorageFullError, UnavailableError
from wakeline.gateway.log.engines.sqlite.appends import Appends
from wakeline.gateway.log.engines.sqlite.writer import Writer
from wakeline.gateway.runtime import supervised

SLICE_EVENTS: Final = 200
SLICE_BYTES: Final = 1024 * 1024
SLICE_SECONDS: Final = 0.005
REMOVED: Final = 0
REBUILT: Final = -1
REBUILD_AT: Final = 0.75
"""The part of `erase_within` after which the file is rebuilt; the rest is for retries."""

_NEXT: Final = "SELECT session, since FROM erasing WHERE session > 0 ORDER BY since LIMIT 1"
_SLICE_PAUSE: Final = 9  # times the duration of a slice: appends wait for each slice, and no caller waits for erasure
_RETRY_SECONDS: Final = 0.5
_FAILED_SECONDS: Final = 30.0
_LONGEST_SLEEP: Final = 60.0  # the wall clock may be set meanwhile
_PROGRESS_STEPS: Final = 100_000  # instructions of SQLite's machine, some milliseconds: the delay of stopping a rebuild
_log = structlog.get_logger(__name__)


class Pending(NamedTuple):
    """The pending erasure, with times of deletions in unix time.

    Attributes:
        rows: The oldest deletion whose rows still exist.
        removed: The oldest deletion whose rows are gone, but whose copies may be in free space.
        rebuilt: The file was rebuilt, and the write-ahead log still has the old pages.
        oldest: The oldest of all pending deletions.
    """

    rows: float | None
    removed: float | None
    rebuilt: bool
    oldest: float | None


def remove_oldest(connection: sqlite3.Connection, session: int, before: int, limit: int) -> int | None:
    """Remove a session's oldest events below `before`: at most `limit`, and about `SLICE_BYTES`.

    Returns:
        The offset after the last one removed; None if there was none.
    """
    rows = connection.execute(
        "SELECT id, offset, bytes_before FROM events WHERE session = ? AND offset < ? ORDER BY offset LIMIT ?",
        (session, before, limit),
    ).fetchall()
    if not rows:
        return None
    taken = [row for row in rows if row[2] - rows[0][2] < SLICE_BYTES]
    connection.executemany("DELETE FROM events WHERE id = ?", [(row[0],) for row in taken])
    offset: int = taken[-1][1] + 1
    return offset


def mark_removed(connection: sqlite3.Connection, since: float) -> None:
    """Request a rebuild for removed rows; `since` is the time of their deletion."""
    connection.execute(
        "INSERT INTO erasing VALUES (?, ?) ON CONFLICT (session) DO UPDATE SET since = min(since, excluded.since)",
        (REMOVED, since),
    )


def erase_slice(connection: sqlite3.Connection, appends: Appends) -> Pending:
    """Remove rows of deleted sessions for a few milliseconds; return what is still pending."""
    appends.flush()
    began = time.monotonic()
    while _erase_step(connection) and time.monotonic() - began < SLICE_SECONDS:
        pass
    marks = dict(connection.execute("SELECT session, since FROM erasing WHERE session <= 0"))
    next_rows = connection.execute(_NEXT).fetchone()
    rows = next_rows[1] if next_rows else None
    oldest = min((since for since in (*marks.values(), rows) if since is not None), default=None)
    return Pending(rows, marks.get(REMOVED), REBUILT in marks, oldest)


def _erase_step(connection: sqlite3.Connection) -> bool:
    """Remove some rows of the session that was deleted first; False if there is none."""
    row = connection.execute(_NEXT).fetchone()
    if row is None:
        return False
    session, since = row
    gone = remove_oldest(connection, session, 1 << 62, SLICE_EVENTS) is None
    if gone and not _remove_publishers(connection, session):
        connection.execute("DELETE FROM erasing WHERE session = ?", (session,))
        mark_removed(connection, since)
    return True


def rebuild(connection: sqlite3.Connection, _: Appends, *, path: Path, stop: threading.Event) -> None:
    """Rebuild the file from the existing rows; call it outside of a transaction.

    Raises:
        StorageFullError: There is not enough space.
        UnavailableError: The rebuild was stopped or cannot run now; the file is unchanged.
    """
    (size,) = connection.execute(
        "SELECT (page_count - freelist_count) * page_size"
        " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    ).fetchone()
    free = shutil.disk_usage(path.parent).free
    if free < 2 * size:  # once in a temporary file, once in the write-ahead log
        raise StorageFullError(f"expected {2 * size} free bytes beside {path} to rebuild it, there are {free}")
    # The temporary file, which SQLite unlinks as soon as it is open, must be on the database's disk, whose space was checked.
    directory = str(path.parent.absolute()).replace("'", "''")
    connection.set_progress_handler(stop.is_set, _PROGRESS_STEPS)
    try:
        connection.execute(f"PRAGMA temp_store_directory = '{directory}'")
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        raise (StorageFullError if full else UnavailableError)(f"{path} was not rebuilt: {error}") from error
    finally:
        connection.set_progress_handler(None, 0)
    connection.execute("UPDATE erasing SET session = ? WHERE session = ?", (REBUILT, REMOVED))


def empty_wal(path: Path) -> bool:
    """Checkpoint and truncate the write-ahead log; return False if a reader prevents that."""
    # On its own connection: most of the log is moved while others write, and only the rest while they wait.
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0.05)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:  # the writer is in the middle of a commit
            return False
    return not busy


def _remove_publishers(connection: sqlite3.Connection, session: int) -> bool:
    publisher = connection.execute("SELECT id FROM publishers WHERE session = ? LIMIT 1", (session,)).fetchone()
    if publisher is None:
        return False
    removed = 0
    for table, key in (("publications", "first_sequence"), ("kept", "first_offset")):
        removed += connection.execute(
            f"DELETE FROM {table} WHERE publisher = ?1 AND {key} IN"
            f" (SELECT {key} FROM {table} WHERE publisher = ?1 ORDER BY {key} LIMIT ?2)",
            (publisher[0], SLICE_EVENTS),
        ).rowcount
    if removed < SLICE_EVENTS:
        connection.execute("DELETE FROM publishers WHERE id = ?", publisher)
    return True


class Eraser:
    """The background task that erases deleted sessions.

    Args:
        writer: Runs the slices and the rebuild.
        path: The database file.
        within: Seconds after a deletion by which the files contain no deleted data.
    """

    def __init__(self, writer: Writer, path: Path, within: float) -> None:
        self._writer = writer
        self._path = path
        self._within = within
        self._oldest: float | None = None
        self._failed = False
        self._wanted = asyncio.Event()
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> float:
        """Seconds since the oldest deletion whose data may still be in the files; 0 if none."""
        return 0.0 if self._oldest is None else max(0.0, time.time() - self._oldest)

    def start(self) -> None:
        """Start the task, with the pending erasure of earlier processes."""
        self._stop.clear()
        self._task = supervised("erasing", self._run)

    def wake(self) -> None:
        """Start erasing now, after a deletion."""
        self._wanted.set()

    async def stop(self) -> None:
        """Stop the task and a running rebuild; the rest follows after the next start."""
        self._stop.set()
        await cancel_all(self._task)
        self._task = None

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                wait = await self._erase()
                self._failed = False
            except (UnavailableError, OSError, sqlite3.Error) as error:
                if not self._failed:  # logged once for all retries; `pending` keeps growing
                    _log.warning("erasure has to wait", error=str(error), oldest_seconds=round(self.pending))
                self._failed, wait = True, min(_FAILED_SECONDS, self._within / 10)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wanted.wait()

    async def _erase(self) -> float | None:
        """Erase what is due; return the seconds until the next step, None if nothing is pending."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            pending = await self._writer.submit(erase_slice)
            self._oldest = pending.oldest
            if pending.rebuilt:
                if not await asyncio.to_thread(empty_wal, self._path):
                    return _RETRY_SECONDS
                await self._writer.submit(lambda c, _: c.execute("DELETE FROM erasing WHERE session = ?", (REBUILT,)))
            elif self._due_in(pending.rows) > 0 >= self._due_in(pending.removed):  # rows that are due go first
                await self._rebuild()
            elif pending.rows is not None:
                await asyncio.sleep(_SLICE_PAUSE * (loop.time() - began))
            else:
                return None if pending.removed is None else min(self._due_in(pending.removed), _LONGEST_SLEEP)

    def _due_in(self, since: float | None) -> float:
        """Return the seconds until the rebuild for a deletion at `since`; infinite for none."""
        if since is None:
            return math.inf
        wait = since + REBUILD_AT * self._within - time.time()
        return wait if wait <= self._within else 0  # a deletion in the future: the clock was set back

    async def _rebuild(self) -> None:
        began = time.monotonic()
        await self._writer.submit(partial(rebuild, path=self._path, stop=self._stop), alone=True)
        _log.info("the file was rebuilt: deleted data is erased", seconds=round(time.monotonic() - began, 1))
