"""The connections that read: a few, each used by one read at a time."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import asyncpg

from wakeline.background import begin, cancel_all
from wakeline.errors import StorageFailedError
from wakeline.gateway.log.engines.postgres.target import Link, Target

_READERS: Final = 4


class Readers:
    """Reads on one of a few connections; the one that was used last is used first.

    Args:
        target: The database.
    """

    def __init__(self, target: Target) -> None:
        self._idle = [Link(target) for _ in range(_READERS)]
        self._links = list(self._idle)
        self._free = asyncio.Semaphore(_READERS)
        self._tasks: set[asyncio.Task[list[asyncpg.Record]]] = set()
        self._closed = False

    async def fetch(self, query: str, *given: Any) -> list[asyncpg.Record]:
        """Return the rows of a query.

        Raises:
            StorageFailedError: They cannot be read now.
        """
        if self._closed:
            raise StorageFailedError("expected an open store, it is closed")
        # A read goes on when its caller is cancelled: to cancel it, asyncpg would open one more connection, and devices that
        # vanish together would become a storm of them.
        return await asyncio.shield(begin(self._fetch(query, given), self._tasks))

    async def row(self, query: str, *given: Any) -> asyncpg.Record | None:
        """Return the only row of a query; None if there is none."""
        rows = await self.fetch(query, *given)
        return rows[0] if rows else None

    async def _fetch(self, query: str, given: tuple[Any, ...]) -> list[asyncpg.Record]:
        async with self._free:
            link = self._idle.pop()
            try:
                return await link.fetch(query, *given)
            finally:
                self._idle.append(link)

    async def close(self) -> None:
        """Close the connections."""
        self._closed = True
        await cancel_all(*self._tasks)
        for link in self._links:
            await link.close()
