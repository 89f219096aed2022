"""Whether the files that are open are still those of the data directory: somebody may delete or replace them underneath."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

_Identity: TypeAlias = tuple[int, int]


class Files:
    """The files of one store, by device and inode.

    Args:
        paths: Those that must stay. One that is not there yet is noted when it comes.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._known: dict[Path, _Identity] = {}

    def remember(self) -> None:
        """Note which files there are: they have just been opened."""
        found = ((path, identity(path)) for path in self._paths)
        self._known = {path: now for path, now in found if now is not None}

    def changed(self) -> str | None:
        """What has become of the files since; None if nothing has.

        A path that cannot be asked about now is passed over: that is no proof.
        """
        for path in self._paths:
            try:
                now = identity(path)
            except OSError:
                continue
            known = self._known.get(path)
            if known is None and now is not None:
                self._known[path] = now
            elif known is not None and now is None:
                return f"{path} was deleted"
            elif known != now:
                return f"{path} is another file now"
        return None


def identity(path: Path) -> _Identity | None:
    """Device and inode of a file; None if there is none.

    Raises:
        OSError: It cannot be asked about.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
