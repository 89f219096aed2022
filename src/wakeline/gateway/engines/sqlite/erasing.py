"""Removing what was deleted: in slices between other people's commits, until none of its events is left in any file.

A deleted session is gone at once: its row is, and its id stands in `erasing`. Its events and publishers follow in slices, each
a short transaction, so that whoever publishes meanwhile waits for one slice at most. SQLite overwrites what it removes
(`secure_delete`); then the write-ahead log, which has what was there before, is emptied; and then copies are looked for
(`scrubbing.py`). A process that ends in the middle goes on at its next start.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from wakeline.errors import UnavailableError
from wakeline.gateway.engines.sqlite.appends import Appends
from wakeline.gateway.engines.sqlite.scrubbing import PIECE_BYTES, fill, look_through
from wakeline.gateway.engines.sqlite.writer import Writer

SLICE_EVENTS: Final = 200
SLICE_BYTES: Final = 1024 * 1024
_PAUSE: Final = 9  # times as long as a slice took: nobody waits for it, and publishers do for each slice
_SCRUB_PAUSE: Final = 9
_SCRUB_PAGES: Final = 20
_SCRUB_ROUNDS: Final = 5  # the first finds them, the second sees that they are gone; others may write in between
_SCRUB_SECONDS: Final = 10.0  # between the end of one look through the file and the next
_RETRY_SECONDS: Final = 0.5
_log = structlog.get_logger(__name__)
T = TypeVar("T")


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


def erase_slice(connection: sqlite3.Connection, appends: Appends) -> bool:
    """Remove a slice of what was deleted; False if there was nothing left."""
    appends.flush()
    row = connection.execute("SELECT session FROM erasing WHERE session > 0 LIMIT 1").fetchone()
    if row is None:
        return False
    if remove_oldest(connection, row[0], 1 << 62, SLICE_EVENTS) is None and not _remove_publishers(connection, row[0]):
        connection.execute("DELETE FROM erasing WHERE session = ?", row)
    return True


def _remove_publishers(connection: sqlite3.Connection, session: int) -> bool:
    publisher = connection.execute("SELECT id FROM publishers WHERE session = ? LIMIT 1", (session,)).fetchone()
    if publisher is None:
        return False
    removed = connection.execute(
        "DELETE FROM publications WHERE publisher = ?1 AND first_sequence IN"
        " (SELECT first_sequence FROM publications WHERE publisher = ?1 ORDER BY first_sequence LIMIT ?2)",
        (publisher[0], SLICE_EVENTS),
    ).rowcount
    removed += connection.execute(
        "DELETE FROM kept WHERE publisher = ?1 AND first_offset IN"
        " (SELECT first_offset FROM kept WHERE publisher = ?1 ORDER BY first_offset LIMIT ?2)",
        (publisher[0], SLICE_EVENTS),
    ).rowcount
    if removed < SLICE_EVENTS:
        connection.execute("DELETE FROM publishers WHERE id = ?", publisher)
    return True


class Eraser:
    """The task that removes what was deleted.

    Args:
        writer: Where the slices are run.
        path: The database file.
    """

    def __init__(self, writer: Writer, path: Path) -> None:
        self._writer = writer
        self._path = path
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._file: int | None = None
        self._not_before = 0.0

    def start(self) -> None:
        """Begin, with what an earlier process has left."""
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._wanted.set()
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Something was deleted."""
        self._wanted.set()

    async def stop(self) -> None:
        """Stop; what is left is removed at the next start."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def close(self) -> None:
        """Let go of the file. To be called when SQLite has."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                done = await self._erase()
            except (UnavailableError, OSError, sqlite3.Error) as error:
                _log.warning("what was deleted cannot be removed now", error=str(error))
                done = False
            if not done:
                self._wanted.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _erase(self) -> bool:
        """Remove everything that was deleted; False if it has to be tried again."""
        while await self._paced(self._writer.submit(erase_slice), _PAUSE):
            pass
        if not await asyncio.to_thread(empty_wal, self._path):
            return False
        if not await self._writer.submit(lambda c, _: c.execute("SELECT 1 FROM erasing").fetchone()):
            return True
        await asyncio.sleep(self._not_before - asyncio.get_running_loop().time())
        clean = False
        for _ in range(_SCRUB_ROUNDS):
            clean = await self._scrub()
            if clean:
                break
            if not await asyncio.to_thread(empty_wal, self._path):
                return False
        self._not_before = asyncio.get_running_loop().time() + _SCRUB_SECONDS
        if self._wanted.is_set():
            return False
        if clean:
            await self._writer.submit(lambda c, _: c.execute("DELETE FROM erasing WHERE session = 0"))
        else:
            _log.warning(
                "copies of deleted events may be left in the file; they are looked for again with the next deletion"
            )
        return True

    async def _scrub(self) -> bool:
        """Look the file through once; True if nothing was left in it."""
        assert self._file is not None
        clean, start = True, 0
        while True:
            gaps = await self._paced(asyncio.to_thread(look_through, self._file, start), _SCRUB_PAUSE)
            if gaps is None:
                return clean
            for first in range(0, len(gaps), _SCRUB_PAGES):
                part = gaps[first : first + _SCRUB_PAGES]
                await self._paced(self._writer.submit(partial(fill, gaps=part)), _PAUSE)
                clean = False
            start += PIECE_BYTES

    async def _paced(self, work: Awaitable[T], pause: float) -> T:
        """Do a piece of work, and rest for `pause` times as long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await work
        await asyncio.sleep(pause * (loop.time() - began))
        return result


def empty_wal(path: Path) -> bool:
    """Move everything from the write-ahead log into the file and cut the log to nothing; False if somebody is reading it."""
    # On a connection of its own: the bulk is moved while others write, and only the rest of it while they wait.
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0.05)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:  # the writer is in the middle of a commit
            return False
    return not busy
