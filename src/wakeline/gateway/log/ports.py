"""The log's ports: what the rest of the gateway asks of an engine.

An engine keeps sessions (append-only logs of events) and small records. One append changes, atomically, only its own
session's log and its publisher's position; everything else is a record under compare-and-set. Nothing here assumes a
database: the same ports fit a replicated log whose appends are compare-and-set themselves.

`Log` appends and reads, `Catalog` creates and deletes sessions, `Records` keeps what belongs to them. `Index` finds offsets,
which an engine may do better than by reading. Every method may be called concurrently from one event loop. A method that is
given an `epoch` acts on that life of the session only. The promises are DESIGN's invariants 1 to 5; `tests/contract` holds
every engine to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence

from msgspec import UNSET, UnsetType

from wakeline.events import NewEvent
from wakeline.gateway.log.feed import Feed, Listener
from wakeline.gateway.log.store import Store
from wakeline.gateway.log.values import Append, Appended, Opened, Page, Position, Publication, Record, SessionState


class Log(ABC):
    """Appends events to sessions and reads them."""

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
            SessionImportingError: The session is a draft of another life.
            StorageFullError: No space; nothing was written.
            StorageFailedError: The store failed; the outcome is unknown.
        """

    @abstractmethod
    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        """Begin an attempt, and so end the earlier ones; return when that would survive a crash.

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
            SessionImportingError: The session is a draft.
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
            limit: The most events that are scanned; the page also ends early, past `PAGE_BYTES`.
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
            limit: The most events that match; the page also ends early, when `PAGE_BYTES` have been scanned.
            topics: Keep only these topics; None keeps all.
            epoch: Read this life of the session only.

        Returns:
            A page whose `began` is the `before` of the page before it, or `before` itself when there is nothing below.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        """Return the session as it is now, or None.

        Args:
            session: The session's name.
            publisher: Return the position of this publisher with it.
        """

    async def position(self, session: str, publisher: str) -> Position | None:
        """Return the progress of a publisher in a session; None if it has appended nothing there."""
        state = await self.state(session, publisher=publisher)
        return None if state is None else state.position

    @abstractmethod
    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        """Remove the oldest events: at most `limit` of them in one step, and only those below `before`.

        Offsets stay as they are, and publishers' positions too: after its events are gone a retry writes no second copy. Their
        places may be forgotten in time; the answer to a retry then has offsets of other events that are gone.

        Returns:
            The oldest offset that is kept now: below `before`, there is more to remove, if there are events at all.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit to a session; return the function that ends this.

        A hub subscribes to the sessions that are watched at its gateway, and is not woken for any other one. From the
        subscription on, the listener gets each event of the session once, in order and without a gap, whichever gateway
        appended it: an engine that several gateways share reads what it was not notified of before it reports what follows.
        """


class Records(ABC):
    """Keeps small values under keys, each changed by compare-and-set."""

    @abstractmethod
    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        """Return the records that exist under these keys, as they were at one moment."""

    @abstractmethod
    async def records(self, prefix: str) -> list[Record]:
        """Return all records whose keys begin with `prefix`, by key."""

    @abstractmethod
    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        """Write or remove a record if it is still at `revision`.

        Args:
            key: Its key.
            value: The new value; None removes the record.
            revision: The revision that it must be at; 0: it must not exist.
            erase: Have all removed data leave the store in time, as with `delete_session`.

        Returns:
            Its revision now; 0 if it is gone.

        Raises:
            RecordConflictError: It is at another revision.
        """

    async def get_record(self, key: str) -> Record | None:
        """Return the record under `key`, or None."""
        return (await self.get_records([key])).get(key)

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        """Write a record if it is still at `revision`; see `change_record`."""
        return Record(key, value, await self.change_record(key, value, revision=revision))

    async def delete_record(self, key: str, *, revision: int, erase: bool = False) -> None:
        """Remove a record if it is still at `revision`; see `change_record`."""
        await self.change_record(key, None, revision=revision, erase=erase)


class Catalog(ABC):
    """Creates, lists and deletes sessions, and keeps when each is due.

    A draft is a session that is being made. It has its name, and only calls that give its epoch find it: it is not listed,
    appends of others are refused, and nobody hears of it. `finish` makes it a session like every other. A draft whose deadline
    has passed was abandoned.
    """

    @abstractmethod
    async def create_session(
        self,
        session: str,
        *,
        config: bytes = b"",
        first_offset: int = 0,
        events: Sequence[NewEvent] = (),
        closed: bool = False,
        deadline: float | None = None,
        draft: bool = False,
    ) -> tuple[SessionState, bool]:
        """Create a session; one that is there already is left as it is.

        Args:
            session: The session's name.
            config: Bytes to keep with it.
            first_offset: The offset that its first event will have.
            events: Its first events.
            closed: Close it after these events.
            deadline: Unix time from which `due` names it.
            draft: Create a draft.

        Returns:
            The session, and whether it was created now.

        Raises:
            SessionImportingError: It is a draft.
        """

    @abstractmethod
    async def configure(
        self,
        session: str,
        *,
        epoch: str,
        config: bytes | UnsetType = UNSET,
        deadline: float | UnsetType | None = UNSET,
        finish: bool = False,
    ) -> None:
        """Change what is kept with a session.

        Args:
            session: The session's name.
            epoch: Its life.
            config: Bytes to keep with it from now on.
            deadline: Unix time from which `due` names it; None: never.
            finish: The draft becomes a session.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def delete_session(self, session: str, *, epoch: str | None = None, draft: bool = False) -> bool:
        """Delete the session and its publishers' positions. The name may live again, in another epoch.

        It is gone for everybody when this returns. Its data may leave the store a little later, and does so whatever happens to
        the process.

        Args:
            session: The session's name.
            epoch: Only this life of it.
            draft: Only if it is a draft; without this, only if it is none.

        Returns:
            True if it was deleted; False if there was none, or not that one.
        """

    @abstractmethod
    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        """Return up to `limit` sessions whose names sort after `after` (by code point), without drafts.

        Only sessions of the names, or prefixes that end in `*`, in `within` are read.
        """

    @abstractmethod
    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        """Return name and epoch of up to `limit` sessions and drafts whose deadline is `now` or earlier, the earliest first."""


class Index(ABC):
    """Finds offsets by what events amount to; an engine may do better than to read them."""

    @abstractmethod
    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        """Return the oldest offset from which on the session's events are at most `size` bytes.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        """Return the first kept offset from the first event since `moment` (unix ms), or the end.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """


class Engine(Log, Catalog, Records, Index, Store):
    """Implements the ports on one kind of storage.

    Attributes:
        shared: Several gateways may use the storage at once.
        feed: The commits of this process.
    """

    shared: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed()

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit to a session; return the function that ends this."""
        return self.feed.subscribe(session, listener)

    @abstractmethod
    async def open(self) -> None:
        """Prepare to serve.

        Raises:
            StartupError: The store cannot be used; the message says why.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish accepted work, then release everything."""
