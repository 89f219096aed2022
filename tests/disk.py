"""A small disk, for tests that fill it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Disk:
    """A small disk in a mount namespace of its own, which is gone when its keeper is; it takes no root.

    Attributes:
        path: Where programs that are started with `enter` find it.
        seen: Where everybody else finds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    async def mount(self, size: str) -> None:
        mount = f"mount -t tmpfs -o size={size} tmpfs {self.path} && echo mounted && exec sleep 300"
        self._keeper = await asyncio.create_subprocess_exec(
            *("unshare", "--map-root-user", "--mount", "sh", "-c", mount), stdout=asyncio.subprocess.PIPE
        )
        assert self._keeper.stdout is not None
        assert await self._keeper.stdout.readline() == b"mounted\n"
        self.seen = Path(f"/proc/{self._keeper.pid}/root{self.path}")

    async def unmount(self) -> None:
        self._keeper.kill()
        await self._keeper.wait()

    @property
    def enter(self) -> tuple[str, ...]:
        """What stands before a command that uses the disk."""
        return ("nsenter", "--user", "--mount", "--preserve-credentials", "-t", str(self._keeper.pid), "--")

    def fill(self) -> None:
        """Take every byte that is left."""
        file = os.open(self.seen / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with suppress(OSError):
            while True:
                os.write(file, bytes(1 << 16))
        with suppress(OSError):
            while True:
                os.write(file, bytes(1 << 12))
        os.close(file)

    def make_room(self) -> None:
        """Give back what `fill` has taken."""
        (self.seen / "ballast").unlink()


@asynccontextmanager
async def small_disk(path: Path, size: str) -> AsyncIterator[Disk]:
    """A disk for as long as the block lasts."""
    path.mkdir()
    disk = Disk(path)
    await disk.mount(size)
    try:
        yield disk
    finally:
        await disk.unmount()
