"""The log's ports: the interface of every engine.

An engine stores sessions (append-only logs of events) and small records. One append atomically changes its own session's log
and its publisher's position, and nothing else; all other state is a record under compare-and-set. The ports do not assume a
database: they also fit a replicated log whose appends are compare-and-set themselves.

`Log` appends and reads, `Catalog` creates and deletes sessions, `Records` stores small values, and `Index` (`index.py`) finds
offsets, which an engine may do faster than by reading. Every method may be called concurrently in one event loop. A method
with an `epoch` acts on that life of the session only. `tests/contract` checks every engine against these contracts.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from contextlib import suppress

from msgspec import UNSET, UnsetType

from wakeline.errors import RecordConflictError, SessionNotFoundError
from wakeline.gateway.log.feed import Feed, Listener
from wakeline.gateway.log.index import Index
from wakeline.gateway.log.outcomes import each_appended
from wakeline.gateway.log.store import Store
from wakeline.gateway.log.values import (
    Append,
    Appended,
    NewSession,
    Opened,
    Outcome,
    Page,
    Position,
    Publication,
    Record,
    SessionState,
)


class Log(ABC):
    """Appends events to sessions and reads them."""

    @abstractmethod
    async def append(self, append: Append) -> Appended:
        """Append a batch; return when it is durable.

        A session that does not exist is created. With a publication, events that the log already has are trimmed from the
        front; a batch that it has as a whole receives its first answer again, even from a closed session.

        Raises:
            SequenceGapError: Events before this batch are missing.
            AttemptFencedError: A later attempt of the publisher has appended.
            PublisherTakenError: The publisher belongs to another owner.
            SessionClosedError: The session is closed.
            EpochChangedError: The session does not live in the append's epoch.
            SessionDeletedError: There is no session, but the publisher's sequence is above 0.
            SessionImportingError: The session is a draft of another life.
            StreamConflictError: The batch is new, and its `order` does not come after that of an earlier one.
            StorageFullError: The disk is full; nothing was written.
            StorageFailedError: The store failed; it is unknown whether the write took effect.
        """

    def append_each(self, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        """Append batches in their order; the future is done when all of them are durable or refused.

        Each batch is decided by itself, as by `append`. An engine may do this with less work for each batch. Cancelling the
        future does not withdraw the batches.

        Returns:
            The answer to each batch: its place, or the error that `append` would raise.
        """
        return asyncio.ensure_future(each_appended(self.append, appends))

    @abstractmethod
    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        """Begin an attempt, which ends the earlier ones; return when that is durable.

        A session that does not exist is created. An attempt that has already begun stays unchanged.

        Args:
            session: The session's name.
            publication: The attempt; its sequence is ignored.
            epoch: The life in which the publisher opened the session before; None if it never did. With an epoch no session is
                created, and another life is accepted only if it has the publisher, as a restored one does.

        Raises:
            SessionDeletedError: The session was deleted since that epoch.
            AttemptFencedError: A later attempt has begun.
            PublisherTakenError: The publisher belongs to another owner.
            SessionClosedError: The session is closed.
            SessionImportingError: The session is a draft.
            StorageFullError: The disk is full; nothing was written.
            StorageFailedError: The store failed; it is unknown whether the write took effect.
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
        """Return a page of durable events from `offset` on, or from the oldest kept one.

        Args:
            session: The session's name.
            offset: The first offset.
            before: Read only offsets below this one; the page neither begins nor ends after it.
            limit: The most events that are scanned; the page also ends with the event that reaches `PAGE_BYTES`.
            topics: Return only events of these topics; None for all.
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
        """Return the last durable events below `before`, in the log's order.

        Args:
            session: The session's name.
            before: Read only offsets below this one.
            limit: The most events that match; the page also ends early, when `PAGE_BYTES` have been scanned.
            topics: Return only events of these topics; None for all.
            epoch: Read this life of the session only.

        Returns:
            A page whose `began` is the `before` of the previous page, or `before` itself if there are no events below it.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        """Return the session's present state; None if there is no such session.

        Args:
            session: The session's name.
            publisher: Include the position of this publisher.
        """

    async def found(self, session: str) -> SessionState:
        """Return the session's present state.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        state = await self.state(session)
        if state is None:
            raise SessionNotFoundError(f"there is no session {session!r}")
        return state

    async def position(self, session: str, publisher: str) -> Position | None:
        """Return a publisher's position in a session; None if it has appended nothing there."""
        state = await self.state(session, publisher=publisher)
        return None if state is None else state.position

    @abstractmethod
    async def forget_publisher(self, session: str, publisher: str, *, epoch: str) -> None:
        """Forget the position of a publisher that will append no more; its events stay.

        An append under its name is new after that.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        """Remove the oldest events below `before`, at most `limit` in one call.

        Offsets and publishers' positions do not change, so a retry writes no second copy of a removed event. An engine may
        forget the exact offsets of removed events; the answer to a retry then has the offsets of other removed events.

        Returns:
            The oldest kept offset. If it is below `before`, more events may have to be removed.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit to a session; return a function that ends this.

        A hub subscribes to the sessions that are watched at its gateway, and is not woken for others. From the subscription
        on, the listener receives each event of the session once, in order and without a gap, whichever gateway appended it. An
        engine that several gateways share therefore reads the events of lost notifications before it reports later ones.
        """


class Records(ABC):
    """Stores small values under keys, each changed by compare-and-set.

    A value has at most `MAX_RECORD_BYTES` (256 KiB).
    """

    @abstractmethod
    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        """Return the existing records under these keys, by key, as of one moment."""

    @abstractmethod
    async def records_after(self, key: str, *, prefix: str = "", limit: int | None = 100) -> list[Record]:
        """Return the first records of a prefix whose keys sort after `key`, in the order of keys.

        Args:
            key: The key to start after.
            prefix: The beginning of their keys.
            limit: The most records; None for all.
        """

    @abstractmethod
    async def count_records(self, prefix: str) -> tuple[int, int]:
        """Return the number and the bytes of a prefix's records, without reading their values."""

    @abstractmethod
    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        """Write or remove a record if it is still at `revision`.

        Args:
            key: The record's key.
            value: The new value, at most `MAX_RECORD_BYTES`; None removes the record.
            revision: The revision that the record must have; 0 if it must not exist.
            erase: Erase removed data from the store's files in time, as `delete_session` does. Default: False.

        Returns:
            The new revision; 0 if the record was removed.

        Raises:
            RecordConflictError: The record has another revision.
            RecordTooLargeError: The value is over the limit.
        """

    async def records(self, prefix: str) -> list[Record]:
        """Return all records whose keys begin with `prefix`, in the order of keys."""
        return await self.records_after("", prefix=prefix, limit=None)

    async def get_record(self, key: str) -> Record | None:
        """Return the record under `key`; None if there is none."""
        return (await self.get_records([key])).get(key)

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        """Write a record if it is still at `revision`; see `change_record`."""
        return Record(key, value, await self.change_record(key, value, revision=revision))

    async def delete_record(self, key: str, *, revision: int, erase: bool = False) -> None:
        """Remove a record if it is still at `revision`; see `change_record`."""
        await self.change_record(key, None, revision=revision, erase=erase)

    async def remove(self, record: Record) -> None:
        """Remove a record as it was read; one that was changed or removed meanwhile stays as it is."""
        with suppress(RecordConflictError):
            await self.delete_record(record.key, revision=record.revision)


class Catalog(ABC):
    """Creates, lists and deletes sessions, and stores their deadlines.

    A draft is a session that is being imported. It occupies its name, and only calls with its epoch find it: it is not listed,
    other appends are refused, and its commits are not reported. `finish` turns it into an ordinary session. A draft whose
    deadline has passed counts as abandoned.
    """

    @abstractmethod
    async def create_session(self, new: NewSession) -> tuple[SessionState, bool]:
        """Create a session; an existing one stays unchanged.

        Returns:
            The session, and whether it was created now.

        Raises:
            SessionImportingError: There is a draft of this name.
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
        """Change a session's config or deadline, or finish a draft.

        Args:
            session: The session's name.
            epoch: Its life.
            config: The bytes to store with it; unchanged if not given.
            deadline: Unix time from which `due` returns it; None for never; unchanged if not given.
            finish: Turn the draft into an ordinary session. Default: False.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """

    @abstractmethod
    async def delete_session(self, session: str, *, epoch: str | None = None, draft: bool = False) -> bool:
        """Delete the session and its publishers' positions.

        When this returns, no reader finds the session, and a new one of its name has another epoch. The data is erased from
        the store's files later, even if the process ends before.

        Args:
            session: The session's name.
            epoch: Delete only this life of it; None for any.
            draft: Delete it only if it is a draft; otherwise, only if it is none. Default: False.

        Returns:
            True if it was deleted; False if there is no such session, life or draft.
        """

    @abstractmethod
    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        """Return up to `limit` sessions whose names sort after `after`, without drafts.

        Args:
            after: The name to start after, in the order of code points.
            limit: The most sessions.
            within: Names, and prefixes that end in `*`: only these sessions are read. Default: all.
        """

    @abstractmethod
    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        """Return the sessions and drafts that are due, with the earliest deadline first.

        Args:
            now: Unix time: their deadline is this one or earlier.
            limit: The most that are returned.

        Returns:
            The name and the epoch of each.
        """


class Engine(Log, Catalog, Records, Index, Store):
    """The base class of engines: all ports on one kind of storage.

    Attributes:
        name: The kind of the store and where it is, without credentials.
        shared: Whether several gateways may use the storage at once. Default: False.
        feed: Notifies listeners of this process's commits.
    """

    name: str = "memory"
    shared: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed()

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit to a session; return a function that ends this."""
        return self.feed.subscribe(session, listener)

    @abstractmethod
    async def open(self) -> None:
        """Open the store.

        Raises:
            StartupError: The store cannot be used; the message has the reason.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the accepted operations, then release the store."""
