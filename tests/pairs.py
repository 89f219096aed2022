"""Two whole gateways on one store, as a test of one gateway talks to them: it writes to the one and reads from the other."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from tests.support import Served, Stream


class Pair(Served):
    """Two gateways on one store.

    Args:
        writing: Gets what changes something.
        reading: Gets the other requests, and what a test does with `url` and `http`. Streams are opened at each in turn.
    """

    def __init__(self, writing: Served, reading: Served) -> None:
        super().__init__(reading.url)
        self._writing = writing
        self._reading = reading
        self._turns = cycle((writing, reading))

    async def call(self, method: str, path: str, **how: Any) -> tuple[int, Any]:
        if method in ("GET", "HEAD"):
            return await super().call(method, path, **how)
        return await self._writing.call(method, path, **how)

    async def metric(self, name: str, **labels: str) -> float:
        return sum([await served.metric(name, **labels) for served in (self._writing, self._reading)])

    async def stream(self, session: str, query: str = "", **headers: str) -> Stream:
        return await next(self._turns).stream(session, query, **headers)
