"""Erases the rows of deleted sessions in slices, at one gateway at a time for each session."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from wakeline.background import cancel_all, wait_at_most
from wakeline.errors import UnavailableError
from wakeline.gateway.log.engines.postgres.target import FAILURES, Connection, Link, Target
from wakeline.gateway.runtime import supervised

_SLICE: Final = 500
_PAUSE: Final = 4  # times the duration of a slice: no caller waits for erasure
_FIRST_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 30.0

# Another gateway that has a session's row is erasing it.
_NEXT: Final = "SELECT session FROM wakeline.erasing ORDER BY since LIMIT 1 FOR UPDATE SKIP LOCKED"
_OLDEST: Final = "SELECT min(since) FROM wakeline.erasing"
_EVENTS: Final = """
    DELETE FROM wakeline.events WHERE session = $1
    AND at < (SELECT min(at) FROM wakeline.events WHERE session = $1) + $2::bigint
"""
_PUBLISHER: Final = "SELECT id FROM wakeline.publishers WHERE session = $1 LIMIT 1"
_PLACES: Final = """
    DELETE FROM wakeline.{table} WHERE publisher = $1 AND {column} IN
    (SELECT {column} FROM wakeline.{table} WHERE publisher = $1 ORDER BY {column} LIMIT $2)
"""
_PUBLICATIONS: Final = _PLACES.format(table="publications", column="first_sequence")
_KEPT: Final = _PLACES.format(table="kept", column="first_offset")


class Eraser:
    """The background task that erases deleted sessions.

    Args:
        target: The database.
    """

    def __init__(self, target: Target) -> None:
        self._link = Link(target)
        self._oldest: float | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> float:
        """Seconds since the oldest deletion whose rows still exist; 0 if none."""
        return 0.0 if self._oldest is None else max(0.0, time.time() - self._oldest)

    def start(self) -> None:
        """Start the task, with the pending erasure of earlier processes."""
        self._task = supervised("erasing", self._run)

    def wake(self) -> None:
        """Start erasing now, after a deletion."""
        self._wanted.set()

    async def stop(self) -> None:
        """Stop the task; the rest follows after the next start, or at another gateway."""
        await cancel_all(self._task)
        self._link.drop()

    async def _run(self) -> None:
        seconds = _FIRST_SECONDS
        while True:
            await wait_at_most(seconds, self._wanted.wait())
            seconds = _CHECK_SECONDS
            self._wanted.clear()
            with suppress(UnavailableError, *FAILURES):  # `pending` grows, and the next check tries again
                await self._erase()

    async def _erase(self) -> None:
        loop = asyncio.get_running_loop()
        connection = await self._link.get()
        while True:
            began = loop.time()
            async with connection.transaction():
                session = await connection.fetchval(_NEXT)
                if session is not None:
                    await _erase_slice(connection, session)
            self._oldest = await connection.fetchval(_OLDEST)
            if session is None:
                return
            await asyncio.sleep(_PAUSE * (loop.time() - began))


async def _erase_slice(connection: Connection, session: int) -> None:
    if _count(await connection.execute(_EVENTS, session, _SLICE)):
        return
    publisher = await connection.fetchval(_PUBLISHER, session)
    if publisher is None:
        await connection.execute("DELETE FROM wakeline.erasing WHERE session = $1", session)
        return
    removed = _count(await connection.execute(_PUBLICATIONS, publisher, _SLICE))
    removed += _count(await connection.execute(_KEPT, publisher, _SLICE))
    if removed < _SLICE:
        await connection.execute("DELETE FROM wakeline.publishers WHERE id = $1", publisher)


def _count(answer: str) -> int:
    """Return the number of rows in a statement's answer, such as `DELETE 5`."""
    return int(answer.rpartition(" ")[2])
