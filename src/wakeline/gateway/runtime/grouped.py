"""Group commit for whatever takes its time: many ask, few times is it done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Grouped(Generic[T]):
    """Does one piece of work at a time; all who ask during one time share the next. No timer, no waiting for more to come."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """Have the work done, beginning after this call; `work` is the same for all who ask."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(work))
        return await asyncio.shield(self._next)  # one who leaves must not end it for the others

    async def idle(self) -> None:
        """Wait until what is under way now is done."""
        async with self._lock:
            pass

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            self._next = None
            return await work()
