"""The runs of each session and their states; `run_records.py` describes the stored form."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

from wakeline.gateway.log import Engine
from wakeline.gateway.sessions.run import Run
from wakeline.gateway.sessions.run_names import RunNames
from wakeline.gateway.sessions.run_records import RunRecords


class Runs:
    """The runs of each session, and their states.

    Attributes:
        names: The names of the runs that Temporal runs belong to.
    """

    def __init__(self, engine: Engine) -> None:
        self._records = RunRecords(engine)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.names = RunNames(self.of)

    def lock(self, session: str) -> asyncio.Lock:
        """Return the lock to hold from reading a session's runs to writing the consequences.

        Without it two runs that end at once would each see the other one open, and neither would settle the session.
        """
        return self._locks.setdefault(session, asyncio.Lock())

    async def of(self, session: str) -> list[Run]:
        """Return the session's runs, oldest first; of the ended ones, the last 1,000."""
        return await self._records.of(session)

    async def of_each(self, sessions: Sequence[str], most_bytes: int) -> list[list[Run]]:
        """Return the runs of several sessions in order, up to the one that exceeds `most_bytes`."""
        return await self._records.of_each(sessions, most_bytes)

    async def settled(self, session: str) -> bool:
        """Return whether the session has had a run and none is open."""
        runs = await self.of(session)
        return bool(runs) and not any(run.open for run in runs)

    async def unfinished(self) -> list[tuple[str, Run]]:
        """Return the runs to follow after a restart, with their sessions.

        These are the open runs, and the ended ones whose streams could not be read to the end.
        """
        found = await self._records.unfinished()
        for session, run in found:
            self.names.know(session, run)
        return found

    async def latest(self, session: str, run: str) -> Run | None:
        """Return a run as its record has it now; None if no record has it."""
        return await self._records.get(session, run)

    async def put(self, session: str, run: Run) -> None:
        """Add a run to the records, or replace it.

        Raises:
            RecordTooLargeError: The session has too many open runs for another one.
        """
        self.names.know(session, run)
        await self._records.put(session, run)

    async def want_result(self, session: str, run: Run) -> None:
        """Note that the result of a run is to be reported, whichever gateway follows it."""
        await self._records.want_result(session, run.run)

    async def restore(self, session: str, runs: Sequence[Run]) -> None:
        """Write the runs of a session that has none.

        Raises:
            RecordConflictError: It has some.
        """
        await self._records.create(session, runs)

    async def revisions(self, session: str) -> dict[str, int]:
        """Return the revisions of the session's records by key; every change of a run increases one."""
        return await self._records.revisions(session)

    async def forget(self, session: str, revisions: Mapping[str, int] | None = None) -> None:
        """Remove the records that are at these revisions; at any revision if that is None."""
        await self._records.forget(session, revisions)
