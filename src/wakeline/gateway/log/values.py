"""The values of the log's ports: batches, their answers, pages, states and records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

from wakeline.errors import RecordConflictError, RecordTooLargeError, WakelineError
from wakeline.events import Event, NewEvent, check_label, milliseconds
from wakeline.gateway.log.owners import Owner

PAGE_BYTES: Final = 256 * 1024
"""A page ends with the event that reaches this size, which bounds a device's memory."""

MAX_RECORD_BYTES: Final = 256 * 1024
"""The greatest size of a record's value, which leaves room under the limits of brokers (NATS: 1 MiB a message)."""


@lru_cache(maxsize=8)  # consecutive events often share their time
def unix(time: str) -> int:
    """Return an event's time as Unix time in milliseconds."""
    return milliseconds(datetime.fromisoformat(time))


class Publication(msgspec.Struct, frozen=True, gc=False):
    """The publisher of a batch, and the position of the batch in its sequence.

    Attributes:
        publisher: The name of one source of events.
        attempt: Its fencing epoch, from 1.
        sequence: The number of events that it has appended before in this attempt.
        covers: The sequence numbers that the batch stands for, if that is not the number of its events: a `$gap` event stands
            for all events that can no longer be read, and a batch without events passes over events that the log has already.
            None for the number of events.
        supersedes: Whether `$attempt.superseded` withdraws the events of earlier attempts when this attempt begins.
        run: The run that the attempt belongs to.
        activity: The activity that the attempt belongs to.
        owner: The appending owner; None for the gateway itself, and where no token is required.
    """

    publisher: str
    attempt: int = 1
    sequence: int = 0
    covers: int | None = None
    supersedes: bool = False
    run: str | None = None
    activity: str | None = None
    owner: Owner | None = None

    @classmethod
    def of_attempt(
        cls,
        publisher: str,
        attempt: int,
        sequence: int = 0,
        *,
        run: str | None,
        activity: str | None,
        supersede: bool | None,
        owner: Owner | None = None,
    ) -> Publication:
        """Return a caller's publication; an activity's attempts supersede each other by default.

        Raises:
            RequestInvalidError: The name of the run or activity is invalid.
        """
        check_label("run", run)
        check_label("activity", activity)
        supersedes = activity is not None if supersede is None else supersede
        return cls(publisher, attempt, sequence, supersedes=supersedes, run=run, activity=activity, owner=owner)


class Append(msgspec.Struct, frozen=True):
    """A batch of events for one session, which is appended as a whole or not at all.

    Attributes:
        session: The session's name.
        events: The events; none is allowed if the batch closes the session or passes over sequence numbers.
        publication: The publisher; without it a retry may write a second copy.
        close: Close the session after these events. Default: False.
        epoch: Append only to this life of the session; None for any life, or a new session.
        order: The `Stream-Seq`, which must sort after that of each earlier append to this life; empty if it has none.
    """

    session: str
    events: tuple[NewEvent, ...]
    publication: Publication | None = None
    close: bool = False
    epoch: str | None = None
    order: str = ""


class NewSession(msgspec.Struct, frozen=True):
    """A session to create.

    Attributes:
        session: The session's name.
        config: Bytes to store with it. Default: none.
        first_offset: The offset of its first event. Default: 0.
        events: Its first events.
        closed: Whether it is closed after these events. Default: False.
        deadline: Unix time from which `due` returns it; None for never.
        draft: Whether it is a draft. Default: False.
    """

    session: str
    config: bytes = b""
    first_offset: int = 0
    events: Sequence[NewEvent] = ()
    closed: bool = False
    deadline: float | None = None
    draft: bool = False


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The place of a batch in the log.

    Attributes:
        first_offset: The offset of its first event.
        next_offset: The offset after its last event.
        epoch: The session's epoch.
        duplicate: Whether the log already had every event.
    """

    first_offset: int
    next_offset: int
    epoch: str
    duplicate: bool = False


Outcome: TypeAlias = Appended | WakelineError
"""The answer to one of several batches: its place, or the error of the refusal."""


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A publisher's opened attempt.

    Attributes:
        attempt: The attempt.
        next_sequence: The number of events that it has appended.
        earlier_events: The number of events of earlier attempts that are not superseded.
        epoch: The session's epoch.
    """

    attempt: int
    next_sequence: int
    earlier_events: int
    epoch: str


class Position(msgspec.Struct, frozen=True, gc=False):
    """A publisher's progress: its latest attempt and the next sequence number in it.

    Attributes:
        attempt: The latest attempt.
        next_sequence: The next sequence number in it.
        owner: Its owner, which engines set for the decision of an append; None if it has none.
    """

    attempt: int
    next_sequence: int
    owner: Owner | None = None


class Published(msgspec.Struct, frozen=True, gc=False):
    """The publication of one event, as far as the log still has it.

    Attributes:
        publisher: The publisher's name.
        attempt: Its attempt; None if a later one has begun, whose events do not supersede it.
        sequence: The event's number in the attempt, or of a Durable Streams producer the number of the request, which
            several events may share; None as for `attempt`.
    """

    publisher: str
    attempt: int | None = None
    sequence: int | None = None


class SessionState(msgspec.Struct, frozen=True, gc=False):
    """A session at one moment.

    Attributes:
        session: Its name.
        epoch: Its life.
        next_offset: The offset of the next event.
        created: When its life began, RFC 3339.
        closed: Whether it refuses appends.
        first_offset: The offset of the oldest kept event; `next_offset` if there is none.
        size: The size of the kept events' bodies, in bytes.
        config: Bytes that are stored with it; the engine does not interpret them.
        deadline: Unix time from which `due` returns it; None for never.
        position: The position of the requested publisher; None if none was requested, or it has appended nothing here.
    """

    session: str
    epoch: str
    next_offset: int
    created: str
    closed: bool = False
    first_offset: int = 0
    size: int = 0
    config: bytes = b""
    deadline: float | None = None
    position: Position | None = None


class Page(msgspec.Struct, frozen=True):
    """A contiguous stretch of a session's log, filtered by topic.

    Attributes:
        events: The events that matched, in order.
        next_offset: Where the next page begins, after all scanned events.
        began: Where the page begins: after the requested offset if retention has removed events there.
    """

    events: list[Event]
    next_offset: int
    began: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A small value under a key, with the revision that a change must name."""

    key: str
    value: bytes
    revision: int


def check_record(key: str, value: bytes | None) -> None:
    """Raise unless a record may have this value; every engine calls it before a change.

    Raises:
        RecordTooLargeError: The value has more than `MAX_RECORD_BYTES`.
    """
    if value is not None and len(value) > MAX_RECORD_BYTES:
        raise RecordTooLargeError(f"expected at most {MAX_RECORD_BYTES} bytes in record {key[:64]!r}, got {len(value)}")


def check_revision(key: str, value: bytes | None, revision: int, now: int) -> None:
    """Raise unless a change of a record applies to it as it is now.

    Args:
        key: The record's key.
        value: Its new value; None to remove it.
        revision: The revision that the change expects.
        now: The record's revision; 0 if there is none.

    Raises:
        RecordConflictError: It has another revision, or there is none to remove.
    """
    if now != revision:
        raise RecordConflictError(f"expected {key!r} at revision {revision}, it is at {now}")
    if value is None and not now:
        raise RecordConflictError(f"expected a record under {key!r}, there is none")


Change: TypeAlias = Literal["configured", "closed", "deleted", "trimmed", "appended"]
"""A change of a session.

`configured`: it was created without an event, or its config was set. `trimmed`: its oldest events were removed. `appended`:
another gateway has appended events, which were not read because nobody watches the session at this one.
"""
