"""The generation of a store: detects that an older state of it was restored.

A device may hold events that a restored store does not have, and a cursor after them. The store would give the same offsets to
other events, and the device would mistake those for the successors of its own. So a restored store begins a new generation, in
which every session has another epoch, and every older cursor is refused.

Three records in the store reveal a restore:

- the inode of its file, which a copy does not have, unless the system gives it that of the deleted file;
- where the file system has one (ext4, XFS, Btrfs), the generation of the inode of the mark beside it: a copied mark has another;
- its generation and its ticks, which the mark repeats. A tick is counted in the store with the first commit and with
  later ones that are `TICK_SECONDS` apart; the mark is written after the commit. So the store is never behind the mark after a
  crash, as long as commits survive it, and one without a mark was put into another directory. (With
  `durability = "process"` a power cut loses commits, which is detected, too.)

A whole directory that was put back on the same inodes, as by a snapshot of the volume or by `cp` over it, cannot be detected:
`wakeline restored` declares it, and belongs to every restore.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from wakeline.gateway.log.engines.sqlite.files import identity

TICK_SECONDS: Final = 0.05
_MARK_BYTES: Final = 64
_FS_IOC_GETVERSION: Final = 0x80087601  # Linux, <linux/fs.h>


class Generation:
    """The generation of the store in a directory, and its ticks.

    Args:
        database: The database file.
        mark: The file of the mark.
    """

    def __init__(self, database: Path, mark: Path) -> None:
        self._database = database
        self._path = mark
        self._file: int | None = None
        self._name = ""
        self._noted = ""  # what `_files` returned, written with each tick: earlier versions noted less
        self._ticks = 0
        self._ticked = float("-inf")
        self._behind = False  # the mark does not have this transaction's tick yet
        self._uncounted = False  # something was committed since the last tick
        self.restored = False
        """Whether the store was restored, and its sessions do not durably have new epochs yet."""

    def open(self, connection: sqlite3.Connection) -> None:
        """Compare the store with its file and its mark, and set `restored`.

        Raises:
            OSError: The mark cannot be opened.
            sqlite3.Error: The store cannot be read or written.
        """
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._name, self._ticks, files = connection.execute("SELECT generation, ticks, inode FROM store").fetchone()
        if not self._name:  # a new store, or one of a version without generations
            self.begin(connection)
            return
        generation, _, ticks = os.pread(self._file, _MARK_BYTES, 0).decode(errors="replace").strip().partition(" ")
        marked = ticks.isascii() and ticks.isdigit()
        # A crash before the first mark was on disk looks the same: new epochs do no harm to so new a store.
        is_older = not marked or generation != self._name or int(ticks) > self._ticks
        now = self._files()
        self.restored = is_older or not _are_same(files, now)
        self._noted = max(files, now, key=len)  # the one that has the generation, too

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a new generation, in the transaction that gives the sessions new epochs."""
        self._name, self._ticks, self._noted = token_hex(8), self._ticks + 1, self._files()
        connection.execute(
            "UPDATE store SET generation = ?, ticks = ?, inode = ?", (self._name, self._ticks, self._noted)
        )
        self._ticked, self._behind = time.monotonic(), True

    def tick(self, connection: sqlite3.Connection, *, last: bool = False) -> None:
        """Count this transaction if the last tick is old enough, or if it is the last one."""
        now = time.monotonic()
        if self.restored or (last and not self._uncounted):
            return
        if last or now - self._ticked >= TICK_SECONDS:
            self._ticks += 1
            connection.execute("UPDATE store SET ticks = ?, inode = ?", (self._ticks, self._noted))
            self._ticked, self._behind = now, True

    def committed(self) -> None:
        """Write the mark: the transaction is durable."""
        self._uncounted = not self._behind
        if self._behind and self._file is not None and not self.restored:
            self._behind = False
            with suppress(OSError):  # a mark that is behind the store does no harm
                os.pwrite(self._file, f"{self._name} {self._ticks}".ljust(_MARK_BYTES - 1).encode() + b"\n", 0)

    def forget(self, connection: sqlite3.Connection) -> None:
        """Read the store again after a transaction that was, or may have been, rolled back."""
        row = connection.execute("SELECT generation, ticks FROM store").fetchone()
        self._name, self._ticks = row
        self._ticked, self._behind = float("-inf"), False

    def close(self) -> None:
        """Close the mark."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _files(self) -> str:
        """Return the inode of the database, and the generation of the mark's.

        The database itself is not opened: closing it would release SQLite's locks.
        """
        found = identity(self._database)
        inode, generation = "" if found is None else str(found[1]), bytearray(8)
        assert self._file is not None
        with suppress(OSError):
            fcntl.ioctl(self._file, _FS_IOC_GETVERSION, generation)
            return f"{inode} {int.from_bytes(generation[:4], sys.byteorder)}"
        return inode


def _are_same(noted: str, now: str) -> bool:
    """Return whether the files are the noted ones; earlier versions noted the inode alone."""
    return noted == now or noted in now.split()[:1] or now in noted.split()[:1]
