"""The runs of each session and their states; `run_records.py` describes the stored form."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final
from weakref import WeakValueDictionary

from wakeline.gateway.log import Engine
from wakeline.gateway.sessions.run import Run
from wakeline.gateway.sessions.run_records import RunRecords

_NAMES: Final = 50_000


class Runs:
    """The runs of each session, and their states."""

    def __init__(self, engine: Engine) -> None:
        self._records = RunRecords(engine)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._names: dict[tuple[str, str], str] = {}  # by session and Temporal run: the run's name; oldest first

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

    def name_of(self, session: str, run_id: str) -> str:
        """Return the name of the run that a Temporal run belongs to; its own id if unknown here.

        An activity knows its Temporal run, and not the first run of the chain.
        """
        return self._names.get((session, run_id), run_id)

    def know(self, session: str, run_id: str, name: str) -> None:
        """Remember that a Temporal run belongs to the run `name`, which the record may not have yet."""
        key = (session, run_id)
        self._names.pop(key, None)
        self._names[key] = name
        if len(self._names) > _NAMES:
            del self._names[next(iter(self._names))]

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
            self.know(session, run.run_id, run.run)
        return found

    async def latest(self, session: str, run: str) -> Run | None:
        """Return a run as its record has it now; None if no record has it."""
        return await self._records.get(session, run)

    async def put(self, session: str, run: Run) -> None:
        """Add a run to the records, or replace it.

        Raises:
            RecordTooLargeError: The session has too many open runs for another one.
        """
        self.know(session, run.run_id, run.run)
        await self._records.put(session, run)

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
