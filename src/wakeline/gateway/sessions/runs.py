"""The runs of each session and their states; `run_records.py` describes the stored form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final
from weakref import WeakValueDictionary

from wakeline.gateway.log import Engine
from wakeline.gateway.sessions.run import Run
from wakeline.gateway.sessions.run_names import RunNames
from wakeline.gateway.sessions.run_records import RunRecords

_AT_ONCE: Final = 100
"""Sessions whose records are read in one call to the store."""
_AT_ONCE_BYTES: Final = 1_000_000


class Runs(RunRecords):
    """The records of runs, with the names of those that this gateway has seen.

    Attributes:
        names: The names of the runs that Temporal runs belong to.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.names = RunNames(self.of)

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

    async def unfinished(self) -> list[tuple[str, Run]]:
        """Return the runs to follow after a restart, with their sessions.

        These are the open runs, and the ended ones whose streams could not be read to the end.
        """
        found = await super().unfinished()
        for session, run in found:
            self.names.know(session, run)
        return found

    async def add(self, session: str, run: Run) -> Run:
        """Add a run to the records, unless another gateway has; return it as the record has it.

        Raises:
            RecordTooLargeError: The session has too many open runs for another one.
        """
        there = await super().add(session, run)
        self.names.know(session, there)
        return there

    async def put(self, session: str, run: Run) -> None:
        """Add a run to the records, or replace it.

        Raises:
            RecordConflictError: Another gateway has come further with the run.
            RecordTooLargeError: The session has too many open runs for another one.
        """
        self.names.know(session, run)
        await super().put(session, run)
