"""A session as a file: one line that says what it is, a line for each event, and one that says that this was all.

A file is read into a draft, a session that only the import can find, and the draft becomes visible when the last line has come
and agrees with the first. So a session is imported as a whole or not at all, and neither reading nor writing holds more than a
page. A draft has a deadline, which the import moves on while it runs: an abandoned draft is deleted like an expired session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wakeline.errors import (
    BodyInvalidError,
    BodyTooLargeError,
    EpochChangedError,
    ImportInvalidError,
    NotAllowedError,
    RecordConflictError,
    RequestInvalidError,
    SessionExistsError,
    SessionImportingError,
    SessionNotFoundError,
    StorageFailedError,
    TopicInvalidError,
    UnavailableError,
)
from wakeline.events import (
    COMPACT,
    GAP,
    MessagePiece,
    NewEvent,
    WirePayload,
    check_fields,
    check_label,
    check_topic,
    compose,
    timestamp,
)
from wakeline.gateway.delivery import Topics
from wakeline.gateway.log import MAX_STEP, Append, Engine, SessionState
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions.config import Retention, SessionConfig, check_content_type, decode_config, encode_config
from wakeline.gateway.sessions.deletion import Deletions
from wakeline.gateway.sessions.runs import Run, Runs

DRAFT_SECONDS: Final = 20.0
"""After so long without a sign of life an import counts as abandoned."""

_MOST_RUNS: Final = 10_000  # a session keeps a thousand that have ended, and those that are open
_BATCH_EVENTS: Final = 1000
_BATCH_BYTES: Final = 256 * 1024
_END: Final = b'{"wakeline_export_end":'
_MOST_AHEAD: Final = timedelta(minutes=5)  # of the clock of the gateway that exported
_LAST_YEAR: Final = 9998  # a moment of the year after it may be none in another time zone

MAX_OFFSET: Final = 2**52
"""The greatest end of an imported session; JSON readers can hold all offsets that follow."""

Offset = Annotated[int, Meta(ge=0, le=MAX_OFFSET)]


class Importer(msgspec.Struct, frozen=True):
    """The limits of an import.

    Attributes:
        topics: Only these topics; None for all.
        restores: Also what no publisher could have written: Wakeline's own events, and the record of runs.
        most_event_bytes: The largest data of one event, unless the importer restores.
    """

    topics: Topics | None = None
    restores: bool = True
    most_event_bytes: int = 0

    def check_runs(self, runs: Sequence[Run]) -> None:
        """Raise unless a session may be made with a record of these runs.

        Raises:
            NotAllowedError: The importer does not restore. A record would have later runs of its workflows followed.
        """
        if runs and not self.restores:
            raise _not_allowed("line 1 to name no runs")

    def check(self, event: _Line, moment: datetime, size: int, number: int) -> None:
        """Raise unless an event may be imported.

        Raises:
            NotAllowedError: It may not by this importer.
            ImportInvalidError: It cannot be in a log.
        """
        if self.topics is not None and event.topic not in self.topics:
            raise NotAllowedError(f"expected topics that the token allows, got {event.topic[:64]!r} in line {number}")
        if event.topic == COMPACT or (event.topic == GAP and b'"retention"' in bytes(event.data or b"")):
            raise ImportInvalidError(f"expected an event of a log in line {number}, {event.topic} is made for readers")
        if self.restores:
            return
        if event.topic.startswith("$"):
            raise _not_allowed(f"no event of Wakeline's own, got {event.topic[:64]!r} in line {number}")
        if event.attempt is not None and event.attempt > MAX_STEP:
            raise _not_allowed(f"an attempt of at most {MAX_STEP} in line {number}, got {event.attempt}")
        if moment > datetime.now(UTC) + _MOST_AHEAD:
            raise _not_allowed(f"no time in the future in line {number}, got {event.time}")
        if size > self.most_event_bytes:
            raise _not_allowed(f"data of at most {self.most_event_bytes} bytes in line {number}, got {size}")


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    wakeline_export: Literal[1]
    session: str
    epoch: str
    first_offset: Offset
    next_offset: Offset
    created: str
    closed: bool
    retention: Retention | None
    runs: Annotated[list[Run], Meta(max_length=_MOST_RUNS)]
    content_type: str | UnsetType = UNSET


class _End(msgspec.Struct, forbid_unknown_fields=True):
    wakeline_export_end: int


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    offset: int
    topic: str
    time: str
    data: msgspec.Raw | UnsetType = UNSET
    payload: msgspec.Raw | UnsetType = UNSET
    run: str | None = None
    activity: str | None = None
    attempt: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None
    key: str | None = None
    message: MessagePiece | None = None


_header = msgspec.json.Decoder(_Header)
_end = msgspec.json.Decoder(_End)
_line = msgspec.json.Decoder(_Line)
_payload = msgspec.json.Decoder(WirePayload)
_moment = msgspec.json.Decoder(datetime)
_encode = msgspec.json.encode


class Archive:
    """Writes sessions as files, and makes sessions from them.

    Args:
        engine: The log.
        runs: The record of each session's runs.
        deletions: Removes what was not finished.
        most_bytes: The largest file that is read.
        most_line_bytes: The longest line.
    """

    def __init__(
        self, engine: Engine, runs: Runs, deletions: Deletions, *, most_bytes: int, most_line_bytes: int
    ) -> None:
        self._engine = engine
        self._runs = runs
        self._deletions = deletions
        self._most_bytes = most_bytes
        self._most_line_bytes = most_line_bytes

    async def export(self, session: str) -> AsyncGenerator[bytes, None]:
        """The session as it is now, a page at a time.

        Raises:
            SessionNotFoundError: There is no such session, or it was deleted before the end.
            EpochChangedError: It was deleted and created again before the end.
            StorageFailedError: It cannot be read; or retention has taken events that had not been written.
        """
        state = await self._engine.state(session)
        if state is None:
            raise SessionNotFoundError(f"there is no session {session!r}")
        yield await self._first_line(state)
        offset = state.first_offset
        while offset < state.next_offset:
            page = await self._engine.read(session, offset, before=state.next_offset, epoch=state.epoch)
            if page.began > offset:
                raise StorageFailedError(f"expected offset {offset} of {session!r}, retention has taken it meanwhile")
            offset = page.next_offset
            yield b"".join([event.json() + b"\n" for event in page.events])
        yield b"%b%d}\n" % (_END, state.next_offset)

    async def load(self, session: str, chunks: AsyncIterator[bytes], importer: Importer | None = None) -> None:
        """Make a session from a file, all of it or nothing.

        Args:
            session: The name it gets, whichever it had.
            chunks: The file.
            importer: What may be imported; None for everything.

        Raises:
            NotAllowedError: The importer may not import this; the message names the line.
            ImportInvalidError: It is not a whole file; the message names the line.
            BodyTooLargeError: It, or a line of it, is too large.
            SessionExistsError: There is a session of this name, or a workflow is followed into it.
            UnavailableError: It cannot be stored, or it is not known whether it was.
        """
        lines = self._lines(chunks)
        header = _parse_header(await anext(lines, b""))
        importer = importer or Importer()
        importer.check_runs(header.runs)
        await self._check_unfollowed(session)
        made = SessionConfig(header.retention, header.content_type or None)
        draft = await self._draft(session, encode_config(made), header.first_offset)
        keeping = supervised(f"import of {session}", lambda: self._keep(draft))
        finished = False
        try:
            await self._fill(draft, header, lines, importer)
            await self._finish(draft, header)
            finished = True
        finally:
            keeping.cancel()
            if not finished:
                await self._engine.delete_session(session, epoch=draft.epoch, draft=True)

    async def _draft(self, session: str, config: bytes, first_offset: int) -> SessionState:
        try:
            draft, created = await self._engine.create_session(
                session, config=config, first_offset=first_offset, deadline=time.time() + DRAFT_SECONDS, draft=True
            )
        except SessionImportingError:
            raise SessionExistsError(
                f"expected a free name, {session!r} is being imported",
                hint=f"If that import was cut short, its name is free again after {DRAFT_SECONDS:.0f} seconds.",
            ) from None
        if not created:
            raise SessionExistsError(f"there is a session {session!r} already")
        return draft

    async def _keep(self, draft: SessionState) -> None:
        """Move the draft's deadline on, until cancelled."""
        while True:
            await asyncio.sleep(DRAFT_SECONDS / 4)
            with suppress(SessionNotFoundError, EpochChangedError):
                await self._engine.configure(draft.session, epoch=draft.epoch, deadline=time.time() + DRAFT_SECONDS)

    async def _first_line(self, state: SessionState) -> bytes:
        its = decode_config(state.config)
        header = _Header(
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
        return _encode(header) + b"\n"

    async def _fill(
        self, draft: SessionState, header: _Header, lines: AsyncIterator[bytes], importer: Importer
    ) -> None:
        """Append the events to the draft; the file has ended well when this returns."""
        batch: list[NewEvent] = []
        number, offset, size, ended = 1, header.first_offset, 0, False
        async for line in lines:
            number += 1
            if ended:
                raise ImportInvalidError(f"expected nothing after the last line, got line {number}")
            if line.startswith(_END):
                _check_end(line, number, offset, header)
                ended = True
                continue
            batch.append(_parse_event(line, number, offset, importer))
            offset += 1
            size += len(line)
            if len(batch) == _BATCH_EVENTS or size >= _BATCH_BYTES:
                await self._engine.append(Append(draft.session, tuple(batch), epoch=draft.epoch))
                batch, size = [], 0
        if not ended:
            raise ImportInvalidError(
                f"expected a last line {_END.decode()}…}}, the file was cut short at line {number}"
            )
        if batch or header.closed:
            await self._engine.append(Append(draft.session, tuple(batch), close=header.closed, epoch=draft.epoch))

    async def _finish(self, draft: SessionState, header: _Header) -> None:
        """Make the draft visible. Its runs are shown as they stood, and none of them is followed."""
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
            async with self._deletions.noted(session, draft.epoch):
                try:
                    await self._runs.restore(session, runs)
                except RecordConflictError:
                    raise SessionExistsError(
                        f"a workflow is followed into {session!r} already", hint="Import under another name."
                    ) from None
                try:
                    await self._engine.configure(session, epoch=draft.epoch, deadline=None, finish=True)
                except (SessionNotFoundError, EpochChangedError):
                    await self._runs.forget(session)
                    raise UnavailableError(
                        f"the import of {session!r} was taken for abandoned and was deleted", hint="Import it again."
                    ) from None

    async def _check_unfollowed(self, session: str) -> None:
        if await self._runs.of(session):
            raise SessionExistsError(
                f"a workflow is followed into {session!r} already", hint="Import under another name."
            )

    async def _lines(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Cut a file into its lines, without those that are empty; holds one line and one chunk."""
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
                    hint="Raise max_body_bytes, to its value where the session was exported.",
                )
        if rest.strip():
            yield bytes(rest)


def _parse_header(line: bytes) -> _Header:
    try:
        header = _header.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImportInvalidError(f'expected {{"wakeline_export": 1, …}} in line 1, got: {error}') from None
    _parse_time(header.created, 1)
    if header.first_offset > header.next_offset:
        raise ImportInvalidError(f"expected first_offset up to {header.next_offset}, got {header.first_offset}")
    try:
        if header.content_type is not UNSET:
            check_content_type(header.content_type)
        for run in header.runs:
            for field in (
                "workflow_id",
                "run",
                "run_id",
                "stream",
                "workflow_type",
                "started_at",
                "namespace",
                "chain",
            ):
                check_label(field, getattr(run, field))
    except RequestInvalidError as error:
        raise ImportInvalidError(f"in line 1: {error.message}") from None
    return header


def _check_end(line: bytes, number: int, offset: int, header: _Header) -> None:
    try:
        told = _end.decode(line).wakeline_export_end
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImportInvalidError(f"expected {_END.decode()}{offset}}} in line {number}, got: {error}") from None
    if not told == offset == header.next_offset:
        raise ImportInvalidError(
            f"expected events up to offset {header.next_offset}, as line 1 says; they end at {offset}, line {number} says {told}"
        )


def _parse_event(line: bytes, number: int, offset: int, importer: Importer) -> NewEvent:
    """An event as the log keeps it. It is composed anew: what was exported comes out as the same bytes."""
    try:
        event = _line.decode(line)
        if event.offset != offset:
            raise ImportInvalidError(f"expected offset {offset} in line {number}, got {event.offset}")
        data, payload = (b"" if raw is UNSET else bytes(raw) for raw in (event.data, event.payload))
        if bool(data) == bool(payload) or (payload and payload[:1] != b"{"):
            raise ImportInvalidError(f"expected either data, or payload with an object, in line {number}")
        if payload:
            _payload.decode(payload)
        moment = _parse_time(event.time, number)
        importer.check(event, moment, len(data or payload), number)
        more: dict[str, Any] = {
            "run": event.run,
            "activity": event.activity,
            "key": event.key,
            "message": event.message,
        }
        check_fields(data, payload=bool(payload), **more)
        return compose(
            check_topic(event.topic, own=True),
            data or payload,
            time=event.time,
            payload=bool(payload),
            attempt=event.attempt,
            **more,
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ImportInvalidError(f"expected an event in line {number}, got: {error}") from None
    except (RequestInvalidError, TopicInvalidError, BodyInvalidError) as error:
        raise ImportInvalidError(f"in line {number}: {error.message}") from None


def _parse_time(text: str, number: int) -> datetime:
    moment: datetime | None = None
    with suppress(msgspec.DecodeError):
        moment = _moment.decode(_encode(text))
    if moment is None or not 1970 <= moment.year <= _LAST_YEAR or timestamp(moment) != text:
        raise ImportInvalidError(
            f"expected a time in UTC with milliseconds, such as 2026-11-21T05:14:43.123Z, in line {number}, got {text[:40]!r}"
        )
    return moment


def _not_allowed(expected: str) -> NotAllowedError:
    return NotAllowedError(
        f"expected {expected}: the token does not allow 'restore'",
        hint="Import with a token whose wakeline.allow has restore, or leave out the lines that no publisher can write.",
    )
