"""Sessions without a followed run that were read lately.

Temporal is asked once for the workflow of such a session, not for each reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from time import monotonic
from typing import Final, TypeVar

T = TypeVar("T")

_KEPT: Final = 50_000
# Sweeps cover the last ten minutes, so one of them finds a run that has begun since Temporal was asked.
_ASK_AGAIN_SECONDS: Final = 300.0


class Readers:
    """The sessions that were read lately, and those whose workflow Temporal was asked for.

    Args:
        lately: Seconds after a read in which sweeps check for new runs of its session.
        clock: Returns the time in seconds.
    """

    def __init__(self, lately: float, clock: Callable[[], float] = monotonic) -> None:
        self._lately = lately
        self._clock = clock
        self._read: dict[str, float] = {}  # both oldest first
        self._asked: dict[str, tuple[float, str]] = {}  # the time, and the session's epoch

    def __contains__(self, session: str) -> bool:
        """Return whether a session was read lately."""
        return self._read.get(session, -math.inf) >= self._clock() - self._lately

    def came(self, session: str) -> None:
        """Note that a session is being read."""
        _note(self._read, session, self._clock())

    def asked(self, session: str, life: str) -> None:
        """Note that Temporal has just answered for the session's workflow, with a run or without."""
        _note(self._asked, session, (self._clock(), life))

    def need_not_ask(self, session: str, life: str) -> bool:
        """Return whether Temporal was asked for this life of the session recently enough."""
        at, its = self._asked.get(session, (-_ASK_AGAIN_SECONDS, life))
        return its == life and self._clock() < at + _ASK_AGAIN_SECONDS

    def forget(self, session: str) -> None:
        """Forget a deleted session: another one may have its name later."""
        self._read.pop(session, None)
        self._asked.pop(session, None)

    def sessions(self) -> Collection[str]:
        """Return the sessions that were read lately."""
        until = self._clock() - self._lately
        while self._read and (oldest := next(iter(self._read.items())))[1] < until:
            del self._read[oldest[0]]
        return list(self._read)


def _note(noted: dict[str, T], session: str, value: T) -> None:
    noted.pop(session, None)
    noted[session] = value
    if len(noted) > _KEPT:
        del noted[next(iter(noted))]
