"""Answers that last (streams, long-polls, WebSockets), and their end when the gateway stops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from aiohttp import web

from wakeline.gateway.access import close_after
from wakeline.gateway.transports.leaving import LEAVING

T = TypeVar("T")


class Lasting:
    """The answers that last; when they end, their clients reconnect, perhaps to another gateway."""

    def __init__(self) -> None:
        self._ends: set[Callable[[], object]] = set()
        self._leaves_by: float | None = None

    @property
    def leaving(self) -> bool:
        """Whether the gateway is about to stop."""
        return self._leaves_by is not None

    async def serve(self, answer: Awaitable[T], end: Callable[[], object] | None = None) -> T:
        """Await an answer; call `end` if the gateway stops meanwhile.

        Without `end`, the current task is cancelled. The cancellation has the message `LEAVING`; see `UntilLeft`.
        """
        if end is None:
            task = asyncio.current_task()
            assert task is not None
            end = partial(task.cancel, LEAVING)
        self._ends.add(end)
        if self._leaves_by is not None:
            self._schedule(end, self._leaves_by)
        try:
            return await answer
        finally:
            self._ends.discard(end)

    def leave(self, seconds: float) -> None:
        """End every answer, also those that begin now, each at a random moment in `seconds`."""
        self._leaves_by = asyncio.get_running_loop().time() + seconds
        for end in self._ends:
            self._schedule(end, self._leaves_by)

    def _schedule(self, end: Callable[[], object], latest: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        loop.call_at(random.uniform(now, max(now, latest)), self._end, end)

    def _end(self, end: Callable[[], object]) -> None:
        if end in self._ends:
            self._ends.discard(end)  # once: a second cancellation would interrupt the farewell
            end()

    async def end(self, _: web.Application) -> None:
        """End every answer now."""
        for end in list(self._ends):
            self._end(end)

    async def on_prepare(self, _: web.Request, answer: web.StreamResponse) -> None:
        """Close the connection after an answer once the gateway is about to stop."""
        if self._leaves_by is not None and answer.status != 101:
            close_after(answer)
