"""The runs of each session and their states; `run_records.py` describes the stored form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final
from weakref import WeakValueDictionary

from wakeline.gateway.log import Engine
from wakeline.gateway.sessions.run import Run
from wakeline.gateway.sessions.run_records import RunRecords

_AT_ONCE: Final = 100
"""Sessions whose records are read in one call to the store."""
_AT_ONCE_BYTES: Final = 1_000_000


class Runs(RunRecords):
    """The records of runs, with a lock for each session."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, session: str) -> asyncio.Lock:
        """Return the lock to hold from reading a session's runs to writing the consequences.

        Without it two runs that end at once would each see the other one open, and neither would settle the session.
        """
        return self._locks.setdefault(session, asyncio.Lock())

    async def settled(self, session: str) -> bool:
        """Return whether the session has had a run and none is open."""
        runs = await self.of(session)
        return bool(runs) and not any(run.open for run in runs)

    async def of_all(self, sessions: Sequence[str]) -> AsyncIterator[tuple[str, list[Run]]]:
        """Yield each of many sessions with its runs, in few calls to the store."""
        at = 0
        while at < len(sessions):
            batch = sessions[at : at + _AT_ONCE]
            found = await self.of_each(batch, _AT_ONCE_BYTES)
            at += len(found)
            for each in zip(batch, found, strict=False):  # those after the most bytes come with the next batch
                yield each
