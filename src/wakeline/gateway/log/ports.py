"""The log: what every engine promises, whatever it keeps its sessions in.

An engine holds sessions (append-only logs of events) and small keyed records. One append changes, atomically, only its
own session's log and its publisher's position; everything else is a record under compare-and-set. Nothing here assumes a
database: the same interface fits a replicated log whose appends are compare-and-set themselves.

The promises are DESIGN's invariants 1 to 5, and `tests/contract` holds every engine to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from wakeline.events import Event, NewEvent, check_label
from wakeline.gateway.log.owners import Owner
from wakeline.gateway.log.store import Store

PAGE_BYTES: Final = 256 * 1024
"""A page ends with the event that takes it past this: what one device that catches up may hold in memory."""

DRAFT: Final = "\x01"
"""A name that begins so is a draft's: no session can be asked for by it, and none of them is listed."""


class Publication(msgspec.Struct, frozen=True, gc=False):
    """Who appends, and which of that publisher's events these are.

    Attributes:
        publisher: Names one source of events.
        attempt: Its fencing epoch, from 1.
        sequence: How many events it has appended before, in this attempt.
        covers: How many sequence numbers the batch stands for, when that is not the number of its events: a `$gap` event
            stands for all the events that can no longer be had, and a batch of none passes over what is in the log already.
        supersedes: When the attempt begins, what earlier ones appended no longer counts, and `$attempt.superseded` says so.
        run: Whose attempt it is: the run.
        activity: The activity.
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
            RequestInvalidError: No run or activity can be named so.
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
        publication: Who appends; without it a retry may write a second copy.
        close: Nothing can be appended after these.
        epoch: Append to this life of the session only, and create none.
    """

    session: str
    events: tuple[NewEvent, ...]
    publication: Publication | None = None
    close: bool = False
    epoch: str | None = None


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


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A publisher's attempt, opened.

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


class SessionState(msgspec.Struct, frozen=True, gc=False):
    """A session at one moment.

    Attributes:
        session: Its name.
        epoch: Its life.
        next_offset: The offset that the next event will have.
        created: When its life began, RFC 3339.
        closed: Nothing can be appended any more.
        first_offset: The oldest event that is kept; `next_offset` if none is.
        size: Bytes of the events that are kept.
        config: What was given to be kept with it; the engine does not look into it.
        deadline: Unix time from which `due` names it.
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


class Page(msgspec.Struct, frozen=True):
    """A contiguous stretch of a session's log, filtered by topic.

    Attributes:
        events: Those that matched, in order.
        next_offset: Where the next page begins; past the events that did not match, too.
        began: Where the page really begins: later than asked for where the oldest events are gone.
    """

    events: list[Event]
    next_offset: int
    began: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A small value under a key, with the revision that a change must name."""

    key: str
    value: bytes
    revision: int


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far a publisher has come: its latest attempt and the next sequence in it.

    Attributes:
        attempt: The latest attempt.
        next_sequence: The next sequence in it.
        owner: Its owner, where an engine decides on an append; None if it has none.
    """

    attempt: int
    next_sequence: int
    owner: Owner | None = None


Change: TypeAlias = Literal["configured", "closed", "deleted", "trimmed"]
"""What became of a session: `configured` is that it was created or named without an event, or its config was set; `trimmed`
is that its oldest events are gone."""

CommitListener: TypeAlias = Callable[[str, str, Sequence[Event]], None]
"""Called in the event loop with a session, its epoch, and the events just made durable, in the session's order."""

ChangeListener: TypeAlias = Callable[[str, str, Change], None]
"""Called in the event loop with a session, its epoch, and what became of it."""


class Engine(Store, ABC):
    """Keeps sessions. Every method may be called concurrently from one event loop.

    A method that takes an `epoch` acts on that life of the session only.

    Attributes:
        shared: Several gateways may use it at once.
    """

    shared: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._commit_listeners: list[CommitListener] = []
        self._change_listeners: list[ChangeListener] = []

    def listen(self, listener: CommitListener) -> None:
        """Have `listener` called after every commit, once per session and commit, never before the commit is durable."""
        self._commit_listeners.append(listener)

    def listen_changes(self, listener: ChangeListener) -> None:
        """Have `listener` called when something became of a session, and that is durable.

        It is called in order with the commits: `closed` after the session's last event, and `deleted` before the first event
        of the life that follows. A session is closed and deleted at most once in a life.
        """
        self._change_listeners.append(listener)

    def _announce(self, session: str, epoch: str, events: Sequence[Event] = (), changes: Sequence[Change] = ()) -> None:
        """Tell the listeners what was made durable."""
        if events:
            for told in self._commit_listeners:
                told(session, epoch, events)
        for change in changes:
            for listener in self._change_listeners:
                listener(session, epoch, change)

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

        A session that does not exist is created. With a publication, events that are there already are trimmed from the
        front; a batch that is there as a whole gets its first answer again, from a closed session too.

        Raises:
            SequenceGapError: Events before this batch are missing.
            AttemptFencedError: A later attempt of the publisher has appended.
            PublisherTakenError: The publisher is another owner's.
            SessionClosedError: The session is closed.
            EpochChangedError: The session does not live in the append's epoch.
            SessionDeletedError: There is no session, and a publisher's sequence above 0.
            StorageFullError: No space; nothing was written.
            StorageFailedError: The store failed; the outcome is unknown.
        """

    @abstractmethod
    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        """Begin an attempt that has appended nothing yet, and so end the earlier ones; return when that would survive a crash.

        A session that does not exist is created. An attempt that has begun is left as it is. Its sequence is ignored.

        Args:
            session: The session's name.
            publication: The attempt.
            epoch: The life in which the publisher opened the session before: create none, and begin in no other life unless it
                knows the publisher, as a restored one does.

        Raises:
            SessionDeletedError: The session was deleted since that epoch.
            AttemptFencedError: A later attempt has begun.
            PublisherTakenError: The publisher is another owner's.
            SessionClosedError: The session is closed.
            StorageFullError: No space; nothing was written.
            StorageFailedError: The store failed; the outcome is unknown.
        """

    @abstractmethod
    async def read(
        self,
        session: str,
        offset: int,
        *,
        before: int,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        """Read durable events from `offset` on, or from the oldest that is kept.

        Args:
            session: The session's name.
            offset: First offset wanted.
            before: Read only offsets below this one; the page neither begins nor ends past it.
            limit: The most events looked at; the page also ends early, past `PAGE_BYTES`.
            topics: Keep only these topics; None keeps all.
            epoch: Read this life of the session only.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def read_back(
        self,
        session: str,
        before: int,
        *,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        """Read the last durable events below `before`, in the log's order.

        Args:
            session: The session's name.
            before: Read only offsets below this one.
            limit: The most events that match; the page also ends early, when `PAGE_BYTES` have been looked at.
            topics: Keep only these topics; None keeps all.
            epoch: Read this life of the session only.

        Returns:
            A page whose `began` is the `before` of the page before it, or `before` itself when there is nothing below.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def state(self, session: str) -> SessionState | None:
        """The session as it is now, or None."""

    @abstractmethod
    async def position(self, session: str, publisher: str) -> Position | None:
        """How far a publisher has come in a session; None if it has appended nothing there."""

    @abstractmethod
    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        """Up to `limit` sessions whose names sort after `after` (by code point), without drafts.

        Only sessions of the names, or prefixes that end in `*`, in `within` are read.
        """

    @abstractmethod
    async def drafts(self) -> list[SessionState]:
        """Every session whose name begins with `DRAFT`: what is being made, or was when a process ended."""

    @abstractmethod
    async def create_session(
        self,
        session: str,
        *,
        config: bytes = b"",
        first_offset: int = 0,
        closed: bool = False,
        deadline: float | None = None,
    ) -> tuple[SessionState, bool]:
        """Create a session without events; one that is there already is left as it is.

        Args:
            session: The session's name.
            config: Kept with it.
            first_offset: The offset that its first event will have.
            closed: Nothing can be appended to it.
            deadline: Unix time from which `due` names it.

        Returns:
            The session, and whether it was created now.
        """

    @abstractmethod
    async def rename_session(self, session: str, name: str, *, epoch: str) -> None:
        """Give a session another name: how a draft becomes what it was made to be, at once or not at all.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
            SessionExistsError: The name is taken.
        """

    @abstractmethod
    async def set_config(self, session: str, config: bytes, *, epoch: str) -> None:
        """Keep another config with the session.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def set_deadline(self, session: str, deadline: float | None, *, epoch: str) -> None:
        """Have `due` name the session from this unix time on; None: never.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        """Name and epoch of up to `limit` sessions whose deadline is `now` or earlier, the earliest first."""

    @abstractmethod
    async def close_session(self, session: str) -> None:
        """Refuse every later append to the session.

        Raises:
            SessionNotFoundError: There is no such session.
        """

    @abstractmethod
    async def delete_session(self, session: str, *, epoch: str | None = None) -> bool:
        """Erase the session and its publishers' positions. The name may live again, in another epoch.

        It is gone for everybody when this returns. What it held may leave the store a little later, and does so
        whatever happens to the process.

        Args:
            session: The session's name.
            epoch: Only this life of it.

        Returns:
            True if it was erased; False if there was none, or not that one.
        """

    @abstractmethod
    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        """Remove the oldest events: at most `limit` of them in one step, and only those below `before`.

        Offsets stay as they are, and publishers' positions too: after its events are gone a retry writes no second copy. Where
        they stood may be forgotten in time; the answer then has offsets of other events that are gone.

        Returns:
            The oldest offset that is kept now: below `before`, there is more to remove, if there are events at all.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        """The oldest offset from which on the session's events are at most `size` bytes.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        """Return the first kept offset from the first event since `moment` (unix ms), or the end."""

    @abstractmethod
    async def get_record(self, key: str) -> Record | None:
        """The record under `key`, or None."""

    @abstractmethod
    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        """Those records under these keys that there are, in one step."""

    @abstractmethod
    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        """Write a record if it is still at `revision` (0: if there is none).

        Raises:
            RecordConflictError: It is at another revision.
        """

    @abstractmethod
    async def delete_record(self, key: str, *, revision: int, erase: bool = False) -> None:
        """Remove a record if it is still at `revision`.

        Args:
            key: Its key.
            revision: What it must be at.
            erase: Have everything that was removed before leave the store in time, as with `delete_session`.

        Raises:
            RecordConflictError: It is at another revision, or gone.
        """

    @abstractmethod
    async def records(self, prefix: str) -> list[Record]:
        """All records whose keys begin with `prefix`, by key."""
