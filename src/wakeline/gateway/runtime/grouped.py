"""Groups calls of slow work: all calls that arrive during one execution share the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Grouped(Generic[T]):
    """Executes one piece of work at a time; calls that arrive meanwhile share the next.

    There is no timer: the next execution begins when the current one ends.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an execution that begins after this call.

        All callers pass `work` with the same effect, because one of them is executed for all.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._run(work))
        return await asyncio.shield(self._next)  # a caller that is cancelled must not cancel it for the others

    async def idle(self) -> None:
        """Wait until the current execution has ended."""
        async with self._lock:
            pass

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            self._next = None
            return await work()
