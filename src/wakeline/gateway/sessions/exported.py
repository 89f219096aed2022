"""Parses the lines of an exported session, and checks them against an importer's limits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wakeline.errors import (
    BodyInvalidError,
    ImportInvalidError,
    NotAllowedError,
    RequestInvalidError,
    TopicInvalidError,
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
    parse_time,
    timestamp,
)
from wakeline.gateway.delivery import Topics
from wakeline.gateway.log import MAX_STEP
from wakeline.gateway.sessions.config import Retention, check_content_type
from wakeline.gateway.sessions.run import Run
from wakeline.notices import Notice, check_notice, with_notice

_MOST_RUNS: Final = 10_000  # a session's record has the open runs and a thousand that have ended
END: Final = b'{"wakeline_export_end":'
_MOST_AHEAD: Final = timedelta(minutes=5)  # the clock of the exporting gateway may be ahead
_LAST_YEAR: Final = 9998  # a time in 9999 may not be representable in another time zone

MAX_OFFSET: Final = 2**52
"""The greatest end of an imported session: JSON readers represent all later offsets exactly."""

Offset = Annotated[int, Meta(ge=0, le=MAX_OFFSET)]


class Importer(msgspec.Struct, frozen=True):
    """The limits of an import.

    Attributes:
        topics: The topics that may be imported; None for all.
        restores: Whether lines are allowed that no publisher can write: Wakeline's own events, and the record of runs.
        most_event_bytes: The largest data of one event; not checked if `restores`.
    """

    topics: Topics | None = None
    restores: bool = True
    most_event_bytes: int = 0

    def check_runs(self, runs: Sequence[Run]) -> None:
        """Raise unless the importer may create a session with a record of these runs.

        Raises:
            NotAllowedError: The importer does not restore. With a record, later runs of its workflows would be followed.
        """
        if runs and not self.restores:
            raise _not_allowed("line 1 to name no runs")

    def check(self, event: _Line, moment: datetime, size: int, number: int) -> None:
        """Raise unless an event may be imported.

        Args:
            event: The event's line.
            moment: The event's time.
            size: The bytes of its data or payload.
            number: The line's number, from 1, for the message.

        Raises:
            NotAllowedError: This importer may not import it.
            ImportInvalidError: No log contains such an event.
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


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of an exported session."""

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
    notify: Notice | None = None


_header = msgspec.json.Decoder(Header)
_end = msgspec.json.Decoder(_End)
_line = msgspec.json.Decoder(_Line)
_payload = msgspec.json.Decoder(WirePayload)


def parse_header(line: bytes) -> Header:
    """Return the header in the first line.

    Raises:
        ImportInvalidError: The line is not a header.
    """
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
            for run_id in run.earlier:
                check_label("earlier", run_id)
    except RequestInvalidError as error:
        raise ImportInvalidError(f"in line 1: {error.message}") from None
    return header


def check_end(line: bytes, number: int, offset: int, header: Header) -> None:
    """Raise unless the last line agrees with the header and the number of events.

    Args:
        line: The last line.
        number: Its number, from 1, for the message.
        offset: The offset after the last event.
        header: The first line.

    Raises:
        ImportInvalidError: They do not agree.
    """
    try:
        end = _end.decode(line).wakeline_export_end
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImportInvalidError(f"expected {END.decode()}{offset}}} in line {number}, got: {error}") from None
    if not end == offset == header.next_offset:
        raise ImportInvalidError(
            f"expected events up to offset {header.next_offset}, as line 1 says; they end at {offset}, line {number} says {end}"
        )


def parse_event(line: bytes, number: int, offset: int, importer: Importer) -> NewEvent:
    """Return an event as the log stores it; an exported event gets the same bytes again.

    Args:
        line: The event's line.
        number: Its number, from 1, for the message.
        offset: The offset that the event must have.
        importer: The limits of the import.

    Raises:
        NotAllowedError: The importer may not import it.
        ImportInvalidError: The line is not such an event.
    """
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
        composed = compose(
            check_topic(event.topic, own=True),
            data or payload,
            time=event.time,
            payload=bool(payload),
            attempt=event.attempt,
            **more,
        )
        return composed if event.notify is None else with_notice(composed, check_notice(event.notify))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ImportInvalidError(f"expected an event in line {number}, got: {error}") from None
    except (RequestInvalidError, TopicInvalidError, BodyInvalidError) as error:
        raise ImportInvalidError(f"in line {number}: {error.message}") from None


def _parse_time(text: str, number: int) -> datetime:
    moment = parse_time(text)
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
