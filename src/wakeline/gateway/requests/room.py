"""The limit on a session's open requests, which are listed and read together."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from wakeline.errors import LimitReachedError
from wakeline.gateway.sessions import InputRequests

MAX_OPEN: Final = 1000
"""The most open requests of a session; each gateway of a shared store counts what it opens itself."""

_PAUSE: Final = 1
"""Seconds between two counts of a session, because a count reads all its open requests."""

_MOST_SESSIONS: Final = 10_000


@dataclass(slots=True)
class _Counted:
    """How many requests can be opened before the next count, and when the last one was."""

    left: int
    at: float


class Room:
    """The room for further open requests in each session.

    Args:
        records: The records of requests.
    """

    def __init__(self, records: InputRequests) -> None:
        self._records = records
        self._counted: dict[str, _Counted] = {}  # by session, used last at the end
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, session: str) -> None:
        """Take the room for one more request of a session.

        Raises:
            LimitReachedError: There is none.
        """
        # Of two requests at once the second one waits for the count of the first.
        async with self._locks.setdefault(session, asyncio.Lock()):
            counted = self._counted.pop(session, None)
            if counted is None or (counted.left <= 0 and time.monotonic() >= counted.at + _PAUSE):
                there = len(await self._records.open(session))
                counted = _Counted(MAX_OPEN - there, time.monotonic())
            self._counted[session] = counted
            if len(self._counted) > _MOST_SESSIONS:
                del self._counted[next(iter(self._counted))]
            if counted.left <= 0:
                raise LimitReachedError(
                    f"expected at most {MAX_OPEN} open requests in session {session!r}, got one more",
                    retry_after=_PAUSE,
                )
            counted.left -= 1
