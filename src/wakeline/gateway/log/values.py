"""The values that pass through the log's ports: what is appended, what is read, and what a session is."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from wakeline.events import Event, NewEvent, check_label
from wakeline.gateway.log.owners import Owner

PAGE_BYTES: Final = 256 * 1024
"""A page ends with the event that takes it past this: the memory that one reading device may need."""


class Publication(msgspec.Struct, frozen=True, gc=False):
    """The publisher of a batch, and which of its events the batch has.

    Attributes:
        publisher: Names one source of events.
        attempt: Its fencing epoch, from 1.
        sequence: How many events it has appended before, in this attempt.
        covers: How many sequence numbers the batch stands for, when that is not the number of its events: a `$gap` event
            stands for all the events that can no longer be had, and a batch of none passes over what is in the log already.
        supersedes: When the attempt begins, `$attempt.superseded` withdraws what earlier attempts appended.
        run: The run that the attempt belongs to.
        activity: The activity that the attempt is of.
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
    """A batch of events for one session: all of it is appended, or none.

    Attributes:
        session: The session's name.
        events: The events; there may be none if the session is closed by it, or sequences are passed over.
        publication: The publisher; without it a retry may write a second copy.
        close: Close the session after these events.
        epoch: Append to this life of the session only, and create none.
    """

    session: str
    events: tuple[NewEvent, ...]
    publication: Publication | None = None
    close: bool = False
    epoch: str | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The place of a batch in the log.

    Attributes:
        first_offset: Offset of its first event.
        next_offset: One past the offset of its last event.
        epoch: The session's epoch.
        duplicate: Every event was there already.
    """

    first_offset: int
    next_offset: int
    epoch: str
    duplicate: bool = False


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A publisher's opened attempt.

    Attributes:
        attempt: The attempt.
        next_sequence: How many events it has appended.
        earlier_events: How many events of earlier attempts count.
        epoch: The session's epoch.
    """

    attempt: int
    next_sequence: int
    earlier_events: int
    epoch: str


class Position(msgspec.Struct, frozen=True, gc=False):
    """The progress of a publisher: its latest attempt and the next sequence in it.

    Attributes:
        attempt: The latest attempt.
        next_sequence: The next sequence in it.
        owner: Its owner, where an engine decides on an append; None if it has none.
    """

    attempt: int
    next_sequence: int
    owner: Owner | None = None


class SessionState(msgspec.Struct, frozen=True, gc=False):
    """A session at one moment.

    Attributes:
        session: Its name.
        epoch: Its life.
        next_offset: The offset that the next event will have.
        created: When its life began, RFC 3339.
        closed: It refuses appends.
        first_offset: The oldest event that is kept; `next_offset` if none is.
        size: Bytes of the events that are kept.
        config: Bytes that are kept with it; the engine does not interpret them.
        deadline: Unix time from which `due` names it.
        position: The progress of the publisher that was asked for; None if it has appended nothing here.
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
        next_offset: Where the next page begins; past the events that did not match, too.
        began: Where the page begins: later than asked for where the oldest events are gone.
    """

    events: list[Event]
    next_offset: int
    began: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A small value under a key, with the revision that a change must name."""

    key: str
    value: bytes
    revision: int


Change: TypeAlias = Literal["configured", "closed", "deleted", "trimmed"]
"""A change of a session. `configured`: it was created or named without an event, or its config was set. `trimmed`: its oldest
events are gone."""
