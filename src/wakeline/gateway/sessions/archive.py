"""Exports sessions as files and imports them: a header, a line per event, and a last line.

A file is imported into a draft, a session that only the import can find. The draft becomes visible when the last line has
arrived and agrees with the first. So a session is imported as a whole or not at all, and neither direction holds more than a
page in memory. A draft has a deadline, which the import extends while it runs: an abandoned draft is deleted like an expired
session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final

import msgspec
from msgspec import UNSET

from wakeline.background import cancel_all
from wakeline.errors import (
    BodyTooLargeError,
    EpochChangedError,
    ImportInvalidError,
    RecordConflictError,
    SessionExistsError,
    SessionImportingError,
    SessionNotFoundError,
    StorageFailedError,
    UnavailableError,
    WakelineError,
)
from wakeline.events import NewEvent
from wakeline.gateway.log import Append, Engine, NewSession, SessionState
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions.config import SessionConfig, decode_config, encode_config
from wakeline.gateway.sessions.deletion import Deletions
from wakeline.gateway.sessions.exported import END, Header, Importer, check_end, parse_event, parse_header
from wakeline.gateway.sessions.runs import Runs
from wakeline.gateway.settings import Settings

DRAFT_SECONDS: Final = 20.0
"""Seconds after which an import that has not extended its draft's deadline counts as abandoned."""

_ENVELOPE_BYTES: Final = 64 * 1024  # what an event is beside its data, at most
_BATCH_EVENTS: Final = 1000
_BATCH_BYTES: Final = 256 * 1024


class Archive:
    """Exports sessions as files and imports them.

    Args:
        engine: The log.
        runs: The record of each session's runs.
        deletions: Removes the parts of an import that was cut short.
        settings: The largest file that is imported, and the largest data of an event in it.
    """

    def __init__(self, engine: Engine, runs: Runs, deletions: Deletions, settings: Settings) -> None:
        self._engine = engine
        self._runs = runs
        self._deletions = deletions
        self._most_bytes = settings.max_import_bytes
        self._most_line_bytes = settings.max_body_bytes + _ENVELOPE_BYTES

    async def export(self, session: str) -> AsyncGenerator[bytes, None]:
        """Yield the session's file as the session is now, a page at a time.

        Raises:
            SessionNotFoundError: There is no such session, or it was deleted before the end.
            EpochChangedError: It was deleted and created again before the end.
            StorageFailedError: It cannot be read, or retention has removed events that had not been written yet.
        """
        state = await self._engine.found(session)
        yield await self._first_line(state)
        offset = state.first_offset
        while offset < state.next_offset:
            page = await self._engine.read(session, offset, before=state.next_offset, epoch=state.epoch)
            if page.began > offset:
                raise StorageFailedError(f"expected offset {offset} of {session!r}, retention has removed it meanwhile")
            offset = page.next_offset
            yield b"".join([event.json() + b"\n" for event in page.events])
        yield b"%b%d}\n" % (END, state.next_offset)

    async def load(self, session: str, chunks: AsyncIterator[bytes], importer: Importer | None = None) -> None:
        """Import a session from a file, as a whole or not at all.

        Args:
            session: The new session's name, which may differ from the exported one's.
            chunks: The file, in pieces of any size.
            importer: The limits of the import; None for no limits.

        Raises:
            NotAllowedError: The importer may not import an event or the runs; the message names the line.
            ImportInvalidError: The file is not a complete export; the message names the line.
            BodyTooLargeError: The file, or a line of it, is too large.
            SessionExistsError: There is a session of this name, or a workflow is followed into it.
            UnavailableError: The session cannot be stored, or it is unknown whether it was stored.
        """
        lines = self._lines(chunks)
        header = parse_header(await anext(lines, b""))
        importer = importer or Importer()
        importer.check_runs(header.runs)
        if await self._engine.state(session) is not None:
            raise _exists(session)
        await self._check_unfollowed(session)
        made = SessionConfig(header.retention, header.content_type or None)
        creating = asyncio.create_task(self._draft(session, encode_config(made), header.first_offset))
        try:
            draft = await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The engine creates the draft nevertheless, and would hold its name until the draft counts as abandoned.
            with suppress(WakelineError):
                await self._delete_draft(await creating)
            raise
        keeping = supervised(f"import of {session}", lambda: self._keep(draft))
        finished = False
        try:
            await self._fill(draft, header, lines, importer)
            await cancel_all(keeping)  # first: a later deadline must not be written to the finished session
            await self._finish(draft, header)
            finished = True
        except (SessionNotFoundError, EpochChangedError):
            raise UnavailableError(
                f"the import of {session!r} counted as abandoned and was deleted", hint="Import it again."
            ) from None
        finally:
            keeping.cancel()
            if not finished:
                await self._delete_draft(draft)

    async def _draft(self, session: str, config: bytes, first_offset: int) -> SessionState:
        try:
            draft, created = await self._engine.create_session(
                NewSession(
                    session, config=config, first_offset=first_offset, deadline=time.time() + DRAFT_SECONDS, draft=True
                )
            )
        except SessionImportingError:
            raise SessionExistsError(
                f"expected a free name, {session!r} is being imported",
                hint=f"If that import was cut short, its name is free again after {DRAFT_SECONDS:.0f} seconds.",
            ) from None
        if not created:
            raise _exists(session)
        return draft

    async def _delete_draft(self, draft: SessionState) -> None:
        await self._engine.delete_session(draft.session, epoch=draft.epoch, draft=True)

    async def _keep(self, draft: SessionState) -> None:
        """Extend the draft's deadline periodically, until cancelled."""
        while True:
            await asyncio.sleep(DRAFT_SECONDS / 4)
            with suppress(SessionNotFoundError, EpochChangedError):
                await self._engine.configure(draft.session, epoch=draft.epoch, deadline=time.time() + DRAFT_SECONDS)

    async def _first_line(self, state: SessionState) -> bytes:
        its = decode_config(state.config)
        header = Header(
            wakeline_export=1,
            session=state.session,
            epoch=state.epoch,
            first_offset=state.first_offset,
            next_offset=state.next_offset,
            created=state.created,
            closed=state.closed,
            retention=its.retention,
            runs=await self._runs.of(state.session),
            content_type=its.content_type or UNSET,
        )
        return msgspec.json.encode(header) + b"\n"

    async def _fill(self, draft: SessionState, header: Header, lines: AsyncIterator[bytes], importer: Importer) -> None:
        """Append the file's events to the draft, and check that the file is complete."""
        batch: list[NewEvent] = []
        number, offset, size, ended = 1, header.first_offset, 0, False
        async for line in lines:
            number += 1
            if ended:
                raise ImportInvalidError(f"expected nothing after the last line, got line {number}")
            if line.startswith(END):
                check_end(line, number, offset, header)
                ended = True
                continue
            batch.append(parse_event(line, number, offset, importer))
            offset += 1
            size += len(line)
            if len(batch) == _BATCH_EVENTS or size >= _BATCH_BYTES:
                await self._engine.append(Append(draft.session, tuple(batch), epoch=draft.epoch))
                batch, size = [], 0
        if not ended:
            raise ImportInvalidError(f"expected a last line {END.decode()}…}}, the file was cut short at line {number}")
        if batch or header.closed:
            await self._engine.append(Append(draft.session, tuple(batch), close=header.closed, epoch=draft.epoch))

    async def _finish(self, draft: SessionState, header: Header) -> None:
        """Make the draft visible; its runs are shown in their exported states, and none is followed."""
        session = draft.session
        runs = [
            msgspec.structs.replace(
                run,
                status="unknown" if run.open else run.status,
                owed=False,
                unread=(),
                waiting=None,
                retrying={},
                failed={},
            )
            for run in header.runs
        ]
        async with self._runs.lock(session):
            await self._check_unfollowed(session)
            # The runs are written before the draft becomes visible; a crash in between is cleaned up by the note.
            async with self._deletions.noted(session, draft.epoch):
                try:
                    await self._runs.restore(session, runs)
                except RecordConflictError:
                    raise _followed(session) from None
                try:
                    await self._engine.configure(session, epoch=draft.epoch, deadline=None, finish=True)
                except (SessionNotFoundError, EpochChangedError):
                    await self._runs.forget(session)
                    raise

    async def _check_unfollowed(self, session: str) -> None:
        if await self._runs.of(session):
            raise _followed(session)

    async def _lines(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the lines of a file that are not empty; holds one line and one chunk in memory."""
        rest = bytearray()
        total = 0
        async for chunk in chunks:
            total += len(chunk)
            if total > self._most_bytes:
                raise BodyTooLargeError(
                    f"expected at most {self._most_bytes} bytes to import", hint="Raise max_import_bytes."
                )
            *lines, last = chunk.split(b"\n")
            for line in lines:
                rest += line
                if rest.strip():
                    yield bytes(rest)
                rest.clear()
            rest += last
            if len(rest) > self._most_line_bytes:
                raise BodyTooLargeError(
                    f"expected lines of at most {self._most_line_bytes} bytes",
                    hint="Raise max_body_bytes to its value at the gateway that exported the session.",
                )
        if rest.strip():
            yield bytes(rest)


def _exists(session: str) -> SessionExistsError:
    return SessionExistsError(f"there is a session {session!r} already")


def _followed(session: str) -> SessionExistsError:
    return SessionExistsError(f"a workflow is followed into {session!r} already", hint="Import under another name.")
