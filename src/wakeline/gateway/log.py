"""The log: what every engine promises, whatever it keeps its sessions in.

An engine holds sessions (append-only logs of events) and small keyed records. One append changes, atomically, only its
own session's log and its publisher's position; everything else is a record under compare-and-set. Nothing here assumes a
database: the same interface fits a replicated log whose appends are compare-and-set themselves.

The promises are DESIGN's invariants 1 to 5, and `tests/contract` holds every engine to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from secrets import choice
from typing import Final, TypeAlias

import msgspec

from wakeline.errors import AttemptFencedError, SequenceGapError
from wakeline.events import Event, NewEvent

PAGE_BYTES: Final = 256 * 1024
"""A page ends with the event that takes it past this: what one device that catches up may hold in memory."""

_EPOCH_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"


class Publication(msgspec.Struct, frozen=True, gc=False):
    """Who appends, and which of that publisher's events these are.

    Attributes:
        publisher: Names one source of events.
        attempt: Its fencing epoch, from 1.
        sequence: How many events it has appended before, in this attempt.
        covers: How many sequence numbers the batch stands for, when that is not the number of its events: a `$gap` event
            stands for all the events that can no longer be had.
    """

    publisher: str
    attempt: int = 1
    sequence: int = 0
    covers: int | None = None


class Append(msgspec.Struct, frozen=True):
    """A batch of events for one session: all of it is appended, or none."""

    session: str
    events: tuple[NewEvent, ...]
    publication: Publication | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where a batch stands in the log.

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


class SessionState(msgspec.Struct, frozen=True, gc=False):
    """A session at one moment."""

    session: str
    epoch: str
    next_offset: int
    created: str
    closed: bool = False


class Page(msgspec.Struct, frozen=True):
    """A contiguous stretch of a session's log, filtered by topic.

    Attributes:
        events: Those that matched, in order.
        next_offset: Where the next page begins; past the events that did not match, too.
    """

    events: list[Event]
    next_offset: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A small value under a key, with the revision that a change must name."""

    key: str
    value: bytes
    revision: int


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far a publisher has come: its latest attempt and the next sequence in it."""

    attempt: int
    next_sequence: int


CommitListener: TypeAlias = Callable[[str, Sequence[Event]], None]
"""Called in the event loop with a session and the events just made durable, in the session's order."""


class Engine(ABC):
    """Keeps sessions. Every method may be called concurrently from one event loop."""

    def __init__(self) -> None:
        self._listeners: list[CommitListener] = []

    def listen(self, listener: CommitListener) -> None:
        """Have `listener` called after every commit, once per session and commit, never before the commit is durable."""
        self._listeners.append(listener)

    def _committed(self, session: str, events: Sequence[Event]) -> None:
        for listener in self._listeners:
            listener(session, events)

    @abstractmethod
    async def open(self) -> None:
        """Get ready to serve.

        Raises:
            StartupError: The store cannot be used; the message says why.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted, then let go of everything."""

    @abstractmethod
    async def append(self, append: Append) -> Appended:
        """Append a batch; return when it would survive a crash.

        A session that does not exist is created. With a publication, events that are there already are trimmed from the front.

        Raises:
            SequenceGapError: Events before this batch are missing.
            AttemptFencedError: A later attempt of the publisher has appended.
            SessionClosedError: The session is closed.
            StorageFullError: No space; nothing was written.
            StorageFailedError: The store failed; the outcome is unknown.
        """

    @abstractmethod
    async def read(
        self, session: str, offset: int, *, before: int, limit: int = 1000, topics: Container[str] | None = None
    ) -> Page:
        """Read durable events from `offset` on.

        Args:
            session: The session's name.
            offset: First offset wanted.
            before: Read only offsets below this one.
            limit: The most events looked at; the page also ends early, past `PAGE_BYTES`.
            topics: Keep only these topics; None keeps all.

        Raises:
            SessionNotFoundError: There is no such session.
        """

    @abstractmethod
    async def state(self, session: str) -> SessionState | None:
        """The session as it is now, or None."""

    @abstractmethod
    async def position(self, session: str, publisher: str) -> Position | None:
        """How far a publisher has come in a session; None if it has appended nothing there."""

    @abstractmethod
    async def sessions(self, *, after: str = "", limit: int = 100) -> list[SessionState]:
        """Up to `limit` sessions whose names sort after `after` (by code point)."""

    @abstractmethod
    async def close_session(self, session: str) -> None:
        """Refuse every later append to the session.

        Raises:
            SessionNotFoundError: There is no such session.
        """

    @abstractmethod
    async def delete_session(self, session: str) -> bool:
        """Erase the session and its publishers' positions; True if there was one. The name may live again, in another epoch."""

    @abstractmethod
    async def get_record(self, key: str) -> Record | None:
        """The record under `key`, or None."""

    @abstractmethod
    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        """Write a record if it is still at `revision` (0: if there is none).

        Raises:
            RecordConflictError: It is at another revision.
        """

    @abstractmethod
    async def delete_record(self, key: str, *, revision: int) -> None:
        """Remove a record if it is still at `revision`.

        Raises:
            RecordConflictError: It is at another revision, or gone.
        """

    @abstractmethod
    async def records(self, prefix: str) -> list[Record]:
        """All records whose keys begin with `prefix`, by key."""


def new_epoch() -> str:
    """A fresh epoch: 50 random bits, so that two lives of one session never share it."""
    return "".join(choice(_EPOCH_ALPHABET) for _ in range(10))


def already_there(position: Position | None, publication: Publication, count: int) -> int:
    """How many events at the front of a batch of `count` the log has already. Every engine decides by this.

    Raises:
        SequenceGapError: Events before the batch are missing.
        AttemptFencedError: A later attempt has appended.
    """
    expected = 0
    if position is not None:
        if publication.attempt < position.attempt:
            raise AttemptFencedError(
                f"expected attempt {position.attempt} or later of {publication.publisher!r}, got attempt {publication.attempt}",
                attempt=position.attempt,
            )
        if publication.attempt == position.attempt:
            expected = position.next_sequence
    if publication.sequence > expected:
        raise SequenceGapError(
            f"expected sequence {expected} or below from {publication.publisher!r}, got {publication.sequence}",
            expected=expected,
        )
    there = expected - publication.sequence
    if publication.covers is None:
        return min(there, count)
    if there == 0:
        return 0
    if there >= publication.covers:
        return count
    # A batch that stands for a range cannot be trimmed: part of what it says is missing has come after all.
    last = publication.sequence + publication.covers - 1
    raise SequenceGapError(
        f"expected sequence {expected} from {publication.publisher!r}, got one batch for {publication.sequence} to {last}",
        expected=expected,
    )
