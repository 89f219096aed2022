"""Detects that open files were deleted or replaced in the data directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

_Identity: TypeAlias = tuple[int, int]


class Files:
    """The files of one store, by device and inode.

    Args:
        paths: The files that must stay. One that does not exist yet is added when it appears.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._known: dict[Path, _Identity] = {}
        self._unseen: set[Path] = set()

    def remember(self) -> None:
        """Record the identities of the files, which have just been opened."""
        found = ((path, identity(path)) for path in self._paths)
        self._known = {path: now for path, now in found if now is not None}

    def changed(self) -> str | None:
        """Return how a file was deleted or replaced since `remember`; None if none was.

        A path counts as lost if it cannot be checked twice in a row: a single error may be temporary.
        """
        for path in self._paths:
            try:
                now = identity(path)
            except OSError as error:
                if path in self._unseen:
                    return f"{path} cannot be reached any more: {error.strerror}"
                self._unseen.add(path)
                continue
            self._unseen.discard(path)
            known = self._known.get(path)
            if known is None and now is not None:
                self._known[path] = now
            elif known is not None and now is None:
                return f"{path} was deleted"
            elif known != now:
                return f"{path} is another file now"
        return None


def identity(path: Path) -> _Identity | None:
    """Return device and inode of a file; None if it does not exist.

    Raises:
        OSError: The file cannot be checked.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
