"""Deleting a session with all that is kept of it: its log, its runs, its devices' positions.

They are several records, and a process may end between two of them. So it is noted first, under `unfinished/<session>`, which
life of the session is being ended, or made; and the next process removes what belongs to no life before it follows or
serves anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from wakeline.errors import RecordConflictError
from wakeline.gateway.delivery import Compacts
from wakeline.gateway.devices import Positions
from wakeline.gateway.log import Engine, Record
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions.runs import Runs

ABANDONED_SECONDS: Final = 20.0
"""A note of another gateway that is unchanged for so long is of one that is gone."""

_CHECK_SECONDS: Final = 5.0
_PREFIX: Final = "unfinished/"
_OF_LIFE: Final = ("stream-seq/",)  # records of transports, by the session's name, each with the epoch that it is of


class _Note(msgspec.Struct, frozen=True):
    epoch: str
    runs: int  # revision of the record of the session's runs


class _OfLife(msgspec.Struct, frozen=True):
    epoch: str


_decoder = msgspec.json.Decoder(_Note)
_of_life = msgspec.json.Decoder(_OfLife)


class Deletions:
    """Deletes sessions.

    Args:
        engine: The log.
        runs: The record of each session's runs.
        positions: The devices' positions.
        metrics: Counts what was deleted.
        compacts: The sessions' compact forms.
        owns: Return whether it is this gateway's work to finish the deletion of a session.
    """

    def __init__(
        self,
        engine: Engine,
        runs: Runs,
        positions: Positions,
        metrics: Metrics,
        compacts: Compacts | None = None,
        *,
        owns: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._engine = engine
        self._runs = runs
        self._positions = positions
        self._metrics = metrics
        self._compacts = compacts
        self._owns = owns
        self._cut_short: set[str] = set()  # keys of notes
        self._seen: dict[str, tuple[int, float]] = {}  # by note: its revision, and since when
        self._checked = 0.0
        self._deleting: set[asyncio.Task[bool]] = set()

    async def start(self) -> None:
        """Finish the deletions that an earlier process has begun.

        On a shared store they may be another gateway's, which still works on them: `finish` waits for a sign of that.

        Raises:
            UnavailableError: It cannot be done now.
        """
        if not self._engine.shared:
            await self._finish_all()

    async def delete(self, session: str, *, epoch: str | None = None, unless_open: bool = False) -> bool:
        """Delete a session; its runs are followed no more.

        Args:
            session: The session's name.
            epoch: Only this life of it.
            unless_open: Not if one of its runs is open.

        Returns:
            True if it was deleted; False if there was none, or not that one, or a run of it is open.

        Raises:
            UnavailableError: It may have been deleted, and if so, the rest of it will be.
        """
        # Whoever asked may leave: the session is held until all of it is gone.
        deleting = asyncio.create_task(self._delete(session, epoch=epoch, unless_open=unless_open))
        self._deleting.add(deleting)
        deleting.add_done_callback(self._deleting.discard)
        return await asyncio.shield(deleting)

    async def _delete(self, session: str, *, epoch: str | None, unless_open: bool) -> bool:
        async with self._runs.lock(session):  # nobody registers a run meanwhile
            state = await self._engine.state(session)
            if state is None and epoch is not None:  # an abandoned draft has nothing but its log
                await self._engine.delete_session(session, epoch=epoch, draft=True)
            if state is None or epoch not in (None, state.epoch):
                return False
            if unless_open and any(run.open for run in await self._runs.of(session)):
                return False
            async with self.noted(session, state.epoch, erase=True):
                deleted = await self._engine.delete_session(session, epoch=state.epoch)
                if deleted:
                    await self._forget(session, state.epoch)
                    self._metrics.deleted.inc()
            return deleted

    @asynccontextmanager
    async def noted(self, session: str, epoch: str, *, erase: bool = False) -> AsyncIterator[None]:
        """Guard a block that begins or ends a life of a session; clean up later if it is cut short.

        Args:
            session: The session's name.
            epoch: The life.
            erase: The block removes records that are to leave the store's files, too.
        """
        key, note = _PREFIX + session, _Note(epoch, await self._runs.revision(session))
        earlier = await self._engine.get_record(key)
        record = await self._engine.put_record(
            key, msgspec.json.encode(note), revision=earlier.revision if earlier else 0
        )
        try:
            yield
            await self._engine.delete_record(key, revision=record.revision, erase=erase)
        except BaseException:
            self._cut_short.add(key)
            raise

    async def finish(self) -> None:
        """Finish the blocks that were cut short: those of this gateway, and those of gateways that are gone.

        Raises:
            UnavailableError: It cannot be done now.
        """
        for key in list(self._cut_short):
            record = await self._engine.get_record(key)
            if record is not None:
                await self._finish(record)
            self._cut_short.discard(key)
        if self._engine.shared:
            await self._finish_abandoned()

    async def _finish_all(self) -> None:
        for record in await self._engine.records(_PREFIX):
            await self._finish(record)

    async def _finish_abandoned(self) -> None:
        """Finish the blocks of gateways that are gone: their notes have not changed for long."""
        now = time.monotonic()
        if now < self._checked + _CHECK_SECONDS:
            return
        self._checked, seen = now, self._seen
        self._seen = {}
        for record in await self._engine.records(_PREFIX):
            revision, since = seen.get(record.key, (0, now))
            since = since if revision == record.revision else now
            self._seen[record.key] = (record.revision, since)
            if now - since >= ABANDONED_SECONDS and self._owns(record.key.removeprefix(_PREFIX)):
                await self._finish(record)

    async def _finish(self, record: Record) -> None:
        session, note = record.key.removeprefix(_PREFIX), _decoder.decode(record.value)
        async with self._runs.lock(session):
            try:
                # A write of the block that was cut short may still be on its way to the log: it arrives before this one.
                known = await self._engine.put_record(record.key, record.value, revision=record.revision)
            except RecordConflictError:
                return  # it was finished, or is being deleted again
            state = await self._engine.state(session)
            if state is None:
                await self._forget(session, note.epoch)
            elif state.epoch != note.epoch:
                # The present life may have runs of its own.
                await self._forget(session, note.epoch, note.runs)
            with suppress(RecordConflictError):  # it is being deleted again
                await self._engine.delete_record(record.key, revision=known.revision, erase=True)

    async def _forget(self, session: str, epoch: str, runs_revision: int | None = None) -> None:
        await self._runs.forget(session, revision=runs_revision)
        await self._positions.forget_session(session)
        if self._compacts is not None:
            await self._compacts.forget(session, epoch)
        for prefix in _OF_LIFE:
            record = await self._engine.get_record(prefix + session)
            if record is not None and _of_life.decode(record.value).epoch == epoch:
                with suppress(RecordConflictError):  # it is of the next life by now
                    await self._engine.delete_record(record.key, revision=record.revision)
