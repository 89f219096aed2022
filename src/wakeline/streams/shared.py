"""Work that is done once for several readers in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class SharedWork:
    """Runs work once for many callers: those that ask while it waits or runs share the answer.

    Readers of one stream at the same offset ask the same question, so a hundred of them cost the host as much as one.
    """

    def __init__(self) -> None:
        self._jobs: dict[Hashable, _Job] = {}

    async def join(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], *, delay: float = 0.0, finish: bool = False
    ) -> T:
        """Return the answer of the work of this key.

        It begins in `delay` seconds, or sooner if another reader needs it sooner. If every reader was cancelled, so is
        the work; with `finish`, only if it has not begun.
        """
        job = self._jobs.get(key)
        if job is None or job.task.done():
            job = self._jobs[key] = _Job(work, finish)
        job.begin_in(delay)
        job.readers += 1
        try:
            return cast(T, await asyncio.shield(job.task))
        finally:
            job.readers -= 1
            if job.task.done() or not job.readers:
                job.leave()
                if self._jobs.get(key) is job:
                    del self._jobs[key]

    def hurry(self) -> None:
        """Begin all waiting work now."""
        for job in self._jobs.values():
            job.begin_in(0)


class _Job:
    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]], finish: bool) -> None:
        self.readers = 0
        self._finish = finish
        self._due: float | None = None
        self._begin = asyncio.Event()
        self.task = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        await self._begin.wait()
        return await work()

    def leave(self) -> None:
        if not (self._finish and self._begin.is_set()):
            self.task.cancel()
        # No reader is left that could receive a failure.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def begin_in(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        if self._due is None or due < self._due:
            self._due = due
            if delay > 0:
                loop.call_at(due, self._begin.set)
            else:
                self._begin.set()
