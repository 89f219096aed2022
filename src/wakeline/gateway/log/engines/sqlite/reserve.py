"""Disk space that is reserved for deletions on a full disk.

SQLite writes a deletion to its write-ahead log first, so on a full disk it could not delete anything. The reserve is a file
beside the database, as large as the log and some more. When the disk is full, it is released for each transaction and refilled
after it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_MIB: Final = 1024 * 1024
_LEAST_BYTES: Final = 3 * _MIB // 2
_MOST_BYTES: Final = 4 * _MIB
_PART_OF_DISK: Final = 8


class Reserve:
    """The reserve of one data directory.

    Args:
        path: The file of the reserve.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self.base = _LEAST_BYTES
        """Bytes of the reserve while the write-ahead log is empty."""

    def open(self) -> None:
        """Open the file; no space is reserved yet.

        Raises:
            OSError: The file cannot be created.
        """
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        disk = os.fstatvfs(self._file)
        self.base = min(max(disk.f_blocks * disk.f_frsize // _PART_OF_DISK, _LEAST_BYTES), _MOST_BYTES)

    def close(self) -> None:
        """Close the file; its space stays reserved."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def hold(self, log_bytes: int = 0) -> bool:
        """Reserve the space for a write-ahead log of this size; False if not even `base` is free.

        The reserve grows a MiB at a time, and shrinks after the log has shrunk.
        """
        if self._file is None:
            return False
        before = os.fstat(self._file).st_size
        wanted = self.base + -(-log_bytes // _MIB) * _MIB
        if wanted > before and not self._grow(before, wanted):
            if before >= self.base or self._grow(before, self.base):
                return True
            for part in (2, 4, 8):  # reserve as much as there is space for
                if before >= self.base // part or self._grow(before, self.base // part):
                    break
            return False
        if before - wanted >= _MOST_BYTES:
            with suppress(OSError):
                os.ftruncate(self._file, wanted)
        return True

    def free_beside(self) -> int:
        """Return the free bytes on the disk."""
        if self._file is None:
            return 0
        disk = os.fstatvfs(self._file)
        return disk.f_bavail * disk.f_frsize

    def release(self) -> None:
        """Release the space."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)

    def _grow(self, before: int, wanted: int) -> bool:
        assert self._file is not None
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file, 0, wanted)
            else:
                os.pwrite(self._file, bytes(wanted - before), before)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, before)
            return False
        return True
