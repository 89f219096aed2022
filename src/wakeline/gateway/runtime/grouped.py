"""Groups calls of slow work: all calls that arrive during one execution share the next."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Grouped(Generic[T]):
    """Executes one piece of work at a time; calls that arrive meanwhile share the next.

    There is no timer: the next execution begins when the current one ends.

    Args:
        wanted_only: Cancel an execution when the last of its callers is cancelled. Default: False, it is finished.
    """

    def __init__(self, *, wanted_only: bool = False) -> None:
        self._wanted_only = wanted_only
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None
        self._callers = Counter[asyncio.Task[T]]()

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an execution that begins after this call.

        All callers pass `work` with the same effect, because one of them is executed for all.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._run(work))
        task = self._next
        self._callers[task] += 1
        try:
            return await asyncio.shield(task)  # a caller that is cancelled must not cancel it for the others
        finally:
            self._leave(task)

    async def idle(self) -> None:
        """Wait until the current execution has ended."""
        async with self._lock:
            pass

    def _leave(self, task: asyncio.Task[T]) -> None:
        self._callers[task] -= 1
        if self._callers[task]:
            return
        del self._callers[task]
        if self._wanted_only and not task.done():
            if self._next is task:  # not begun: the next caller needs another one
                self._next = None
            task.cancel()

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            self._next = None
            return await work()
