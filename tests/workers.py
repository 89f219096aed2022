"""Workers as processes of their own, for tests that kill them.

    python -m tests.workers TEMPORAL QUEUE MODULE

The module names its `WORKFLOWS`, and its `ACTIVITIES` if it has any.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker


class WorkerProcess:
    """A worker of one task queue, started and killed as often as one likes."""

    def __init__(self, address: str, queue: str, module: str) -> None:
        self._command = [sys.executable, "-m", "tests.workers", address, queue, module]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it works."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        )
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), 60) == b"working\n"

    async def kill(self) -> None:
        """Return when it is gone. Doing it twice is harmless."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def main(address: str, queue: str, module: str) -> None:
    """Work until killed."""
    # The SDK logs to stdout, too. A pipe that nobody reads any more would stop the worker, and hide its end.
    said = os.dup(1)
    os.dup2(2, 1)
    what = importlib.import_module(module)
    async with Worker(
        await Client.connect(address),
        task_queue=queue,
        workflows=what.WORKFLOWS,
        activities=getattr(what, "ACTIVITIES", []),
        # What is meant for one that was killed is soon given to another.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
    ):
        os.write(said, b"working\n")
        os.close(said)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
