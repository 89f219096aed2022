"""Answers that last: streams and WebSockets, which end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

T = TypeVar("T")


class Lasting:
    """The answers that last; when they end, their clients reconnect, perhaps to another gateway."""

    def __init__(self) -> None:
        self._ends: set[Callable[[], object]] = set()

    async def serve(self, answer: Awaitable[T], end: Callable[[], object] | None = None) -> T:
        """Await an answer; call `end` if the server stops meanwhile, or cancel the task without it."""
        if end is None:
            task = asyncio.current_task()
            assert task is not None
            end = task.cancel
        self._ends.add(end)
        try:
            return await answer
        finally:
            self._ends.discard(end)

    async def end(self, _: web.Application) -> None:
        """End every answer."""
        for end in list(self._ends):
            end()
