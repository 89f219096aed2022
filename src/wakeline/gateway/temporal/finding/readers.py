"""Readers of sessions of which no run is followed: Temporal is asked for such a session once, not by each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic
from typing import Final

_KEPT: Final = 50_000
# Sweeps look back ten minutes: a run that has begun since Temporal was asked is found by one of them.
_ASK_AGAIN_SECONDS: Final = 300.0


class Readers:
    """The sessions that were read lately, and those for whose workflow Temporal was asked.

    Args:
        lately: For so many seconds after it was read, sweeps look for new runs of a session.
        clock: Tells the time in seconds.
    """

    def __init__(self, lately: float, clock: Callable[[], float] = monotonic) -> None:
        self._lately = lately
        self._clock = clock
        self._read: dict[str, float] = {}  # both oldest first
        self._asked: dict[str, float] = {}

    def came(self, session: str) -> None:
        """Note that a session is read now."""
        _note(self._read, session, self._clock())

    def asked(self, session: str) -> None:
        """Note that Temporal has just told which run the session's workflow has come to, or that there is none."""
        _note(self._asked, session, self._clock())

    def need_not_ask(self, session: str) -> bool:
        """Return whether Temporal was asked for this session recently enough."""
        asked = self._asked.get(session)
        return asked is not None and self._clock() < asked + _ASK_AGAIN_SECONDS

    def forget(self, session: str) -> None:
        """Forget a session that was deleted: under its name another may begin."""
        self._read.pop(session, None)
        self._asked.pop(session, None)

    def sessions(self) -> Collection[str]:
        """Return the sessions that were read lately."""
        until = self._clock() - self._lately
        while self._read and (oldest := next(iter(self._read.items())))[1] < until:
            del self._read[oldest[0]]
        return list(self._read)


def _note(times: dict[str, float], session: str, now: float) -> None:
    times.pop(session, None)
    times[session] = now
    if len(times) > _KEPT:
        del times[next(iter(times))]
