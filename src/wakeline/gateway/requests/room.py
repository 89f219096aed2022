"""The limit on a session's open requests, which are listed and read together.

A request whose outcome is not delivered yet counts as open.
"""

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

MAX_OPEN_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of their records. Answers may use as much again, so that a full session can be answered."""

_PAUSE: Final = 1
"""Seconds between two counts of a session, because a count visits the keys of all its open requests."""

_MOST_SESSIONS: Final = 10_000


@dataclass(slots=True)
class _Counted:
    """The open requests of a session as far as is known, and when they were counted last."""

    number: int
    size: int
    at: float

    def has_room(self, number: int, size: int) -> bool:
        """Return whether so many further requests, of so many bytes, are allowed; 0 for an answer."""
        most = MAX_OPEN_BYTES if number else 2 * MAX_OPEN_BYTES
        return (not number or self.number + number <= MAX_OPEN) and self.size + size <= most


class Room:
    """The room for further open requests in each session.

    Args:
        records: The records of requests.
    """

    def __init__(self, records: InputRequests) -> None:
        self._records = records
        self._counted: dict[str, _Counted] = {}  # by session, used last at the end
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, session: str, size: int, *, number: int = 1) -> None:
        """Take the room for one more request of a session, or for an answer.

        Args:
            session: The session's name.
            size: The bytes of its record, or of the answer.
            number: 1 for a request, 0 for an answer.

        Raises:
            LimitReachedError: There is none.
        """
        # Of two requests at once the second one waits for the count of the first.
        async with self._locks.setdefault(session, asyncio.Lock()):
            counted = self._counted.pop(session, None)
            if counted is None or (not counted.has_room(number, size) and time.monotonic() >= counted.at + _PAUSE):
                counted = _Counted(*await self._records.count_open(session), time.monotonic())
            self._counted[session] = counted
            if len(self._counted) > _MOST_SESSIONS:
                del self._counted[next(iter(self._counted))]
            if not counted.has_room(number, size):
                raise LimitReachedError(
                    f"expected at most {MAX_OPEN} open requests in session {session!r}, and {MAX_OPEN_BYTES} bytes of "
                    f"them and as many of their answers, got {counted.number + number} with {counted.size + size} bytes",
                    retry_after=_PAUSE,
                    hint="Answer or cancel some; one whose outcome is not delivered to its run yet counts as open.",
                )
            counted.number += number
            counted.size += size
