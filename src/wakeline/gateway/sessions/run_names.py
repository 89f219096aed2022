"""Names of runs: which run a Temporal run belongs to, the same at every gateway.

An activity knows its own Temporal run, and not the first one of the chain, which names the run. The gateway that follows a
run learns each of its Temporal runs first and writes it into the run's record; other gateways read the record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from wakeline.gateway.sessions.run import Run

V = TypeVar("V")

_KEPT: Final = 50_000
_UNKNOWN_SECONDS: Final = 0.5
"""Seconds until the records are read again for a Temporal run that none had: its publisher may append many times a second."""


class RunNames:
    """The names of the runs that Temporal runs belong to.

    Args:
        runs_of: Reads the runs of a session.
    """

    def __init__(self, runs_of: Callable[[str], Awaitable[list[Run]]]) -> None:
        self._runs_of = runs_of
        self._names: dict[tuple[str, str], str] = {}  # by session and Temporal run; oldest first
        self._unknown: dict[tuple[str, str], float] = {}  # when the records are read again; oldest first

    def know(self, session: str, run: Run) -> None:
        """Remember the Temporal runs of a run."""
        for run_id in run.run_ids:
            self.learn(session, run_id, run.run)

    def learn(self, session: str, run_id: str, name: str) -> None:
        """Remember a Temporal run of the run `name`, which the records may not have yet."""
        _put(self._names, (session, run_id), name)

    def known(self, session: str, run_id: str) -> str:
        """Return the name of a Temporal run's run, or its own id if this gateway does not know it."""
        return self._names.get((session, run_id), run_id)

    def has(self, session: str, run_id: str) -> bool:
        """Return whether this gateway knows the name of a Temporal run's run."""
        return (session, run_id) in self._names

    async def find(self, session: str, run_id: str) -> str:
        """Return the name of a Temporal run's run, or its own id if the records do not have it.

        Raises:
            UnavailableError: The records cannot be read now.
        """
        key = (session, run_id)
        if key not in self._names and self._unknown.get(key, 0) < monotonic():
            for run in await self._runs_of(session):
                self.know(session, run)
            if key not in self._names:
                _put(self._unknown, key, monotonic() + _UNKNOWN_SECONDS)
        return self._names.get(key, run_id)


def _put(kept: dict[tuple[str, str], V], key: tuple[str, str], value: V) -> None:
    """Add a value as the newest one, and drop the oldest if there are too many."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > _KEPT:
        del kept[next(iter(kept))]
