"""Deletes a session with all of its parts.

The parts are several records: log, runs, devices' positions, compact form, inputs, requests. A process may end between two
changes. So a note under `unfinished/<session>` first records the life of the session that is being deleted or imported. The next
process removes the parts that belong to no existing life, before it follows or serves anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from wakeline.background import begin
from wakeline.errors import RecordConflictError, UnavailableError
from wakeline.gateway.delivery import Compacts
from wakeline.gateway.devices import Positions
from wakeline.gateway.log import Engine, Record
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications import Outbox
from wakeline.gateway.sessions.input_requests import InputRequests
from wakeline.gateway.sessions.intents import Intents
from wakeline.gateway.sessions.run_records import head_revision
from wakeline.gateway.sessions.runs import Runs

ABANDONED_SECONDS: Final = 20.0
"""Seconds after which an unchanged note counts as the note of a gateway that has ended."""

_CHECK_SECONDS: Final = 5.0
_MOST_FAILURES: Final = 10  # of one `finish`: each may have taken a time-out
_PREFIX: Final = "unfinished/"


class _Note(msgspec.Struct, frozen=True):
    epoch: str
    runs: dict[str, int] | int  # revisions of the records of the session's runs; earlier versions had one record


_decoder = msgspec.json.Decoder(_Note)


class Deletions:
    """Deletes sessions, and finishes deletions and imports that were cut short.

    Args:
        engine: The log.
        runs: The record of each session's runs.
        positions: The devices' positions.
        metrics: Counts the deleted sessions.
        compacts: The sessions' compact forms; None if there are none.
        owns: Returns whether this gateway finishes the deletion of a session. Default: of all sessions.
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
        self._outbox = Outbox(engine)
        self._intents = Intents(engine)
        self._requests = InputRequests(engine)
        self._owns = owns
        self._cut_short: dict[str, None] = {}  # keys of notes, those first that have waited longest
        self._seen: dict[str, tuple[int, float]] = {}  # by note: its revision, and when that was first seen
        self._checked = 0.0
        self._deleting: set[asyncio.Task[bool]] = set()

    async def start(self) -> None:
        """Finish the deletions and imports that an earlier process has begun.

        On a shared store a note may be of another gateway that is still working: there `finish` waits until the note has not
        changed for `ABANDONED_SECONDS`.

        Raises:
            UnavailableError: The store cannot be read or written now.
        """
        if not self._engine.shared:
            for record in await self._engine.records(_PREFIX):
                await self._finish(record)

    async def delete(self, session: str, *, epoch: str | None = None, unless_open: bool = False) -> bool:
        """Delete a session; its runs are no longer followed.

        Args:
            session: The session's name.
            epoch: Delete only this life of it; None for any.
            unless_open: Delete it only if none of its runs is open.

        Returns:
            True if it was deleted; False if there is no such session or life, or if `unless_open` prevented it.

        Raises:
            UnavailableError: It may have been deleted; if so, `finish` removes the remaining parts.
        """
        # In a task of its own: if the caller is cancelled, the deletion continues and holds the session's lock to its end.
        deleting = self._delete(session, epoch=epoch, unless_open=unless_open)
        return await asyncio.shield(begin(deleting, self._deleting))

    async def _delete(self, session: str, *, epoch: str | None, unless_open: bool) -> bool:
        async with self._runs.lock(session):  # so that no run is registered meanwhile
            state = await self._engine.state(session)
            if state is None and epoch is not None:  # it may be an abandoned draft, which has no other parts
                await self._engine.delete_session(session, epoch=epoch, draft=True)
            if state is None or epoch not in (None, state.epoch):
                return False
            if unless_open and any(run.open for run in await self._runs.of(session)):
                return False
            async with self.noted(session, state.epoch, erase=True) as runs:
                deleted = await self._engine.delete_session(session, epoch=state.epoch)
                # Also if another gateway has deleted it meanwhile: this one's note has replaced that one's.
                await self._forget(session, state.epoch, runs)
                if deleted:
                    self._metrics.deleted.inc()
            return deleted

    @asynccontextmanager
    async def noted(self, session: str, epoch: str, *, erase: bool = False) -> AsyncIterator[Mapping[str, int]]:
        """Guard a block that begins or ends a life of a session; `finish` cleans up if it fails.

        Yields the revisions of the records of the session's runs before the block.

        Args:
            session: The session's name.
            epoch: The life.
            erase: The block removes records whose data must also leave the store's files.
        """
        runs = await self._runs.revisions(session)
        key, note = _PREFIX + session, _Note(epoch, runs)
        earlier = await self._engine.get_record(key)
        record = await self._engine.put_record(
            key, msgspec.json.encode(note), revision=earlier.revision if earlier else 0
        )
        try:
            yield runs
            with suppress(
                RecordConflictError
            ):  # another gateway deletes or imports the session, too: the note is its own now
                await self._engine.delete_record(key, revision=record.revision, erase=erase)
        except BaseException:
            self._cut_short[key] = None
            raise

    async def finish(self) -> None:
        """Finish interrupted deletions and imports: this gateway's, and those of ended gateways.

        Raises:
            UnavailableError: The store cannot be read or written now.
        """
        failures: list[UnavailableError] = []
        for key in list(self._cut_short):
            try:
                record = await self._engine.get_record(key)
                if record is not None:
                    await self._finish(record)
                self._cut_short.pop(key, None)
            except UnavailableError as error:  # perhaps of the part of the store that has this session
                self._cut_short.pop(key, None)
                self._cut_short[key] = None
                failures.append(error)
                if len(failures) == _MOST_FAILURES:
                    break
        if self._engine.shared:
            await self._finish_abandoned()
        if failures:
            raise failures[0]

    async def _finish_abandoned(self) -> None:
        """Finish the blocks whose notes have not changed for `ABANDONED_SECONDS`."""
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
                # A write of the interrupted block may still be queued at the log. The log applies it before this write, so
                # the state that is read next includes it.
                known = await self._engine.put_record(record.key, record.value, revision=record.revision)
            except RecordConflictError:
                return  # another gateway has finished it, or the session is being deleted again
            state = await self._engine.state(session)
            if state is None or state.epoch != note.epoch:
                noted = head_revision(session, note.runs) if isinstance(note.runs, int) else note.runs
                await self._forget(session, note.epoch, noted)
            with suppress(RecordConflictError):  # the session is being deleted again
                await self._engine.delete_record(record.key, revision=known.revision, erase=True)

    async def _forget(self, session: str, epoch: str, runs: Mapping[str, int]) -> None:
        await self._forget_runs(session, runs)
        await self._positions.forget_session(session)
        if self._compacts is not None:
            await self._compacts.forget(session, epoch)
        await self._outbox.forget(session)
        for kept in (self._intents, self._requests):
            for life in await kept.lives(session):
                # The next life may have begun at any gateway, and its inputs and requests are its own.
                state = await self._engine.state(session)
                if state is None or state.epoch != life:
                    await kept.forget(session, life)

    async def _forget_runs(self, session: str, noted: Mapping[str, int]) -> None:
        """Remove the runs of a deleted life, not those of the next one.

        Args:
            session: The session's name.
            noted: The revisions of the records before the deletion. The next life may have begun at any gateway.
        """
        while found := await self._runs.revisions(session):
            # Read after the records: a life begins before its runs are recorded.
            if await self._engine.state(session) is not None:
                found = {key: revision for key, revision in found.items() if noted.get(key) == revision}
            if not found:
                return
            await self._runs.forget(session, found)
