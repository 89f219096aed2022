"""The life of a store: whether it is what the last process left, or an older state of it that somebody has restored.

A device may hold events that a restored store does not have, and a cursor after them. The store would give the same offsets to
other events, and the device would take those for what follows. So a store that was restored begins a new generation, in which
every session has another epoch, and every cursor from before is refused.

A restored store is found out by what it says of itself against what can be seen:

- the inode of its file, which it has written down: a copy has another one;
- a mark beside it, with its generation and its ticks. A tick is counted in the store with the first commit and with later ones
  that are `TICK_SECONDS` apart; the mark is written after the commit. So the store is never behind the mark, whatever crashes,
  as long as commits survive the crash. (With `durability = "process"` a power cut takes commits back: that is found out, too.)

A whole directory that was put back on the same inodes, as a snapshot of the volume does, cannot be told from one that was left
so: `wakeline restored` says it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from wakeline.gateway.engines.sqlite.files import identity

TICK_SECONDS: Final = 0.05
_MARK_BYTES: Final = 64


class Life:
    """The life of the store in a directory.

    Args:
        database: Its file.
        mark: The file beside it.
    """

    def __init__(self, database: Path, mark: Path) -> None:
        self._database = database
        self._path = mark
        self._file: int | None = None
        self._generation = ""
        self._ticks = 0
        self._ticked = float("-inf")
        self._behind = False  # the mark, of what this transaction has counted
        self._uncounted = False  # something was committed since the last tick
        self.restored = False
        """The store was restored, and its sessions have not got new epochs yet."""

    def open(self, connection: sqlite3.Connection) -> None:
        """Compare what the store says with what can be seen.

        Raises:
            OSError: The mark cannot be opened.
            sqlite3.Error: The store cannot be read or written.
        """
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._generation, self._ticks, inode = connection.execute(
            "SELECT generation, ticks, inode FROM store"
        ).fetchone()
        if not self._generation:  # a new store, or one of a version that did not know this
            self._begin(connection)
            return
        generation, _, ticks = os.pread(self._file, _MARK_BYTES, 0).decode(errors="replace").strip().partition(" ")
        marked = ticks.isascii() and ticks.isdigit()
        self.restored = inode != self._inode() or (
            marked and (generation != self._generation or int(ticks) > self._ticks)
        )

    def renew(self, connection: sqlite3.Connection) -> None:
        """Begin a new generation, in the transaction that gives the sessions new epochs."""
        self._begin(connection)

    def renewed(self) -> None:
        """That transaction is durable."""
        self.restored = False

    def tick(self, connection: sqlite3.Connection, *, last: bool = False) -> None:
        """Count this transaction, if the last tick is long enough ago, or if nothing comes after it."""
        now = time.monotonic()
        if self.restored or (last and not self._uncounted):
            return
        if last or now - self._ticked >= TICK_SECONDS:
            self._ticks += 1
            connection.execute("UPDATE store SET ticks = ?", (self._ticks,))
            self._ticked, self._behind = now, True

    def committed(self) -> None:
        """The transaction is durable: the mark may say so."""
        self._uncounted = not self._behind
        if self._behind and self._file is not None and not self.restored:
            self._behind = False
            with suppress(OSError):  # a mark that stays behind does no harm
                os.pwrite(self._file, f"{self._generation} {self._ticks}".ljust(_MARK_BYTES - 1).encode() + b"\n", 0)

    def forget(self, connection: sqlite3.Connection) -> None:
        """The transaction was taken back, or may have been: only the store knows."""
        row = connection.execute("SELECT generation, ticks FROM store").fetchone()
        self._generation, self._ticks = row
        self._ticked, self._behind = float("-inf"), False

    def close(self) -> None:
        """Let go of the mark."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._generation, self._ticks = token_hex(8), self._ticks + 1
        connection.execute(
            "UPDATE store SET generation = ?, ticks = ?, inode = ?", (self._generation, self._ticks, self._inode())
        )
        self._ticked, self._behind = time.monotonic(), True

    def _inode(self) -> str:
        found = identity(self._database)
        return "" if found is None else str(found[1])
