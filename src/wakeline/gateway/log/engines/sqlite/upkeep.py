"""Checks a store's files, its disk space, and whether it was restored.

Everything here runs in the writer's thread.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from wakeline.errors import StorageFullError
from wakeline.gateway.log.engines.sqlite.files import Files
from wakeline.gateway.log.engines.sqlite.generations import Generation
from wakeline.gateway.log.engines.sqlite.reserve import Reserve

DATABASE: Final = "wakeline.db"
LOCK: Final = "wakeline.lock"
RESERVE: Final = "wakeline.reserve"
MARK: Final = "wakeline.mark"

_UNLIMITED: Final = 0xFFFFFFFE
_FULL_CODES: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_MIB: Final = 1024 * 1024
_STEP_BYTES: Final = 512 * 1024
_CALM_SECONDS: Final = 60.0
"""Seconds without a refusal after which the disk counts as no longer full: large events may not fit where small ones do."""
_PATIENCE: Final = 100  # ms to wait for readers before the write-ahead log is truncated
_log = structlog.get_logger(__name__)


class Upkeep:
    """The upkeep of the store in a directory.

    Args:
        directory: The data directory.
    """

    def __init__(self, directory: Path) -> None:
        database = directory / DATABASE
        self._directory = directory
        self._database = database
        self._least_bytes = 0  # of the database file: only a rebuild shortens it
        self._log_path = directory / f"{DATABASE}-wal"
        self._files = Files(database, self._log_path, directory / f"{DATABASE}-shm", directory / LOCK)
        self._reserve = Reserve(directory / RESERVE)
        self._most_pages = _UNLIMITED
        self._reserved_for = 0  # bytes of the write-ahead log
        self._room = 0  # pages by which a deletion may let the file grow
        self.generation = Generation(database, directory / MARK)
        self.full = False
        """Whether the disk is full: the file may not grow, and transactions log into the reserve."""
        self.short = False
        """Whether the disk is full, or was within the last minute; for people only."""
        self._refused = 0.0  # when the disk was full, by the monotonic clock
        self.lost: str | None = None
        """How the files were deleted or replaced, after which nothing is written; None if not."""

    def open(self) -> None:
        """Open the reserve, before the database is opened.

        Raises:
            OSError: The directory cannot be written.
        """
        self._reserve.open()

    def make_room(self) -> bool:
        """Release the reserve so that the database can be opened; False if the disk is not full."""
        if self._reserve.free_beside() >= self._reserve.base:
            return False
        self._reserve.release()
        return True

    def no_room(self, cause: BaseException) -> StorageFullError:
        """Return the error of a start that failed because the disk is full."""
        needed = -(-(self._reserve.base + self.log_bytes()) // _MIB) + 1
        return StorageFullError(
            f"expected {needed} MiB of free space in {self._directory} for the start, got: {cause}",
            hint=f"Make space on the disk of {self._directory}, at least {needed} MiB, then start the gateway again.",
        )

    def connected(self, connection: sqlite3.Connection) -> None:
        """Note that the database was opened."""
        self._files.remember()
        self.rebuilt()
        self._measure(connection)
        if not self._reserve.hold(self.log_bytes()):
            self.filled(connection)

    def look(self, connection: sqlite3.Connection) -> None:
        """Check the files and the space; call it regularly, between two transactions."""
        self.check_files()
        if self.lost is None:
            self._measure(connection)
        if self.lost is None and not self.full:
            self._reserved_for = self.log_bytes()
            self._reserve.hold(self._reserved_for)
        elif self.lost is None:
            self.settle(connection)
            if self._reserve.hold() and self._reserve.free_beside() > self._reserve.base // 4:
                self.full, self._most_pages = False, _UNLIMITED
                connection.execute(f"PRAGMA max_page_count = {_UNLIMITED}")
        if self.short and not self.full and time.monotonic() - self._refused >= _CALM_SECONDS:
            self.short = False
            _log.info("there is space on the disk again", data=str(self._directory))

    def committed(self) -> None:
        """Extend the reserve if the log has grown: a checkpoint needs as much space again."""
        if not self.full and (size := self.log_bytes()) > self._reserved_for + _STEP_BYTES:
            self._reserved_for = size
            self._reserve.hold(size)

    def check_files(self) -> None:
        """Set `lost` if the files were deleted or replaced, or if the database was shortened."""
        if self.lost is None and (changed := self._files.changed() or self._shortened()) is not None:
            self.lost = changed
            _log.critical("the store's files were deleted or replaced: nothing more is written", what=changed)

    def rebuilt(self) -> None:
        """Note that the database may become shorter."""
        self._least_bytes = 0

    def filled(self, connection: sqlite3.Connection) -> None:
        """Note that the disk is full: the file keeps its size, and deletions make room in it."""
        self._refused = time.monotonic()
        if self.full:
            return
        self.full = True
        self._reserve.release()
        if not self.short:
            self.short = True
            _log.error("the disk is full: appends are refused until there is space", data=str(self._directory))
        self.settle(connection)
        (self._most_pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        self._room = self._reserve.base // 4 // page_size

    def limit(self, connection: sqlite3.Connection, *, grows: bool) -> None:
        """Release the reserve for the next transaction; if it only adds, the file may not grow."""
        self._reserve.release()
        most = self._most_pages if grows else self._most_pages + self._room
        connection.execute(f"PRAGMA max_page_count = {most}")

    def settle(self, connection: sqlite3.Connection) -> None:
        """Truncate the write-ahead log unless a reader prevents it, and refill the reserve."""
        self._reserve.release()
        with _patience(connection), suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._reserve.hold()

    def close(self) -> None:
        """Close the files, after the database; the reserve stays on disk for the next start."""
        if self.lost is None:
            self._reserve.hold()
        self._reserve.close()
        self.generation.close()

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log in bytes."""
        try:
            return os.stat(self._log_path).st_size
        except OSError:
            return 0

    def _shortened(self) -> str | None:
        with suppress(OSError):
            if (size := os.stat(self._database).st_size) < self._least_bytes:
                return f"{self._database} was overwritten: it has {size} bytes, and had {self._least_bytes}"
        return None

    def _measure(self, connection: sqlite3.Connection) -> None:
        """Note the length below which the database must not become shorter.

        It is the length of its pages at most: after a rebuild the file is longer until the write-ahead log is applied.
        """
        with suppress(OSError, sqlite3.Error):
            size = os.stat(self._database).st_size
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            self._least_bytes = max(self._least_bytes, min(size, pages * page_size))


def is_full(error: BaseException | None) -> bool:
    """Return whether an operation failed because the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, sqlite3.Error) and (code in _FULL_CODES or code & 0xFF == sqlite3.SQLITE_FULL)


@contextmanager
def _patience(connection: sqlite3.Connection) -> Iterator[None]:
    (usual,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {usual}")
