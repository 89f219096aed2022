"""Pages of the log for devices that catch up: each is read and encoded once, and shared.

After an outage all devices of a session return at once, most of them to the same offset. The first one starts the read, and
the others receive the same bytes. The latest pages stay cached, for devices that arrive a little later.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from wakeline.background import TaskPerKey
from wakeline.events import Event
from wakeline.gateway.delivery.compact.snapshot import Snapshot
from wakeline.gateway.delivery.gaps import gap
from wakeline.gateway.delivery.topics import Topics
from wakeline.gateway.log import Engine, Page

PAGE_EVENTS: Final = 512
_KEPT_BYTES: Final = 2 * 1024 * 1024  # cached pages of one session; a page has about 256 KiB at most
_ENTRY_BYTES: Final = 512  # the memory of a cached page beside its bytes: one without events counts, too

T = TypeVar("T")


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A stretch of a session in wire form.

    Attributes:
        chunk: The bytes; empty if no topic matched.
        next_offset: Where the next stretch begins.
    """

    chunk: bytes
    next_offset: int


class Pages:
    """One session's pages, in one epoch.

    Args:
        engine: The log.
        session: The session's name.
        epoch: The life that is read.
        created: When it was created: the `time` of a `$gap`, which must be the same for every reader.
    """

    def __init__(self, engine: Engine, session: str, epoch: str, created: str) -> None:
        self._engine = engine
        self._session = session
        self._epoch = epoch
        self._created = created
        self._reading = TaskPerKey()
        self._kept: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._kept_bytes = 0
        self._held: Sequence[Event] = ()

    async def read(self, offset: int, *, before: int, limit: int = PAGE_EVENTS, topics: Topics | None = None) -> Page:
        """Return events from `offset` on; the first is a `$gap` if retention removed events there.

        Args:
            offset: The first offset.
            before: Only offsets below this one.
            limit: The most events that are scanned. Default: `PAGE_EVENTS`.
            topics: Only events of these topics; None for all. Default: None.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
        """
        if (page := self._at_hand(offset, before, limit, topics)) is not None:
            return page
        key = (offset, before, limit, topics)
        return await self._once(key, lambda: self._read(offset, before, limit, topics))

    async def encoded(
        self, offset: int, *, before: int, topics: Topics | None, encode: Callable[[list[Event]], bytes], lane: Hashable
    ) -> Encoded:
        """Return a page in wire form.

        Args:
            offset: The first offset.
            before: Only offsets below this one.
            topics: Only events of these topics; None for all.
            encode: Returns the wire form of events.
            lane: Identifies the wire form and topics: equal lanes share the bytes.
        """

        async def read() -> tuple[list[Event], int]:
            page = await self._read(offset, before, PAGE_EVENTS, topics)
            return page.events, page.next_offset

        return await self._shared((lane, offset), read, encode)

    async def compact(
        self,
        snapshot: Snapshot,
        at: int,
        *,
        topics: Topics | None,
        encode: Callable[[Sequence[Event]], bytes],
        form: Hashable,
    ) -> Encoded:
        """Return a page of a compact form in wire form.

        Args:
            snapshot: The compact form.
            at: The first offset.
            topics: Only events of these topics; None for all.
            encode: Returns the wire form of events.
            form: Identifies the wire form: equal forms and topics share the bytes.
        """
        read = partial(snapshot.page, at, self._read_between, topics)
        return await self._shared((form, topics, snapshot.number, at), read, encode)

    async def folded(self, snapshot: Snapshot, at: int, *, topics: Topics | None) -> tuple[list[Event], int]:
        """Return a page of a compact form, and the offset of the next one; see `compact`."""
        return await snapshot.page(at, self._read_between, topics)

    async def _read_between(self, offset: int, before: int, topics: Topics | None) -> Page:
        return await self.read(offset, before=before, topics=topics)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the cached pages, with what each entry takes beside them."""
        return self._kept_bytes

    def hold(self, events: Sequence[Event]) -> None:
        """Have events that have just become durable at hand, for the readers that wait for them.

        They replace the ones before. So a reader at the session's end costs no read of the log for each event.
        """
        self._held = events

    def forget(self) -> None:
        """Drop all pages: retention has removed events, and later readers must receive a `$gap`."""
        self._held = ()
        self._reading.running.clear()  # reads in progress may have seen the removed events
        self._keep_nothing()

    def _keep_nothing(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0

    def _at_hand(self, offset: int, before: int, limit: int, topics: Topics | None) -> Page | None:
        """Return the page if its first event is held."""
        if not self._held or not self._held[0].offset <= offset < min(before, self._held[-1].offset + 1):
            return None
        at = offset - self._held[0].offset
        events = self._held[at : at + min(limit, before - offset)]
        matching = [event for event in events if topics is None or event.topic in topics]
        return Page(matching, offset + len(events), offset)

    async def _read(self, offset: int, before: int, limit: int, topics: Topics | None) -> Page:
        page = await self._engine.read(
            self._session, offset, before=before, limit=limit, topics=topics, epoch=self._epoch
        )
        if page.began > offset:
            self._keep_nothing()
            return Page([gap(offset, page.began, self._created), *page.events], page.next_offset, page.began)
        return page

    async def _shared(
        self,
        key: Hashable,
        read: Callable[[], Awaitable[tuple[list[Event], int]]],
        encode: Callable[[list[Event]], bytes],
    ) -> Encoded:
        """Return the kept bytes, or read and encode them for all who want them."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept

        async def make() -> Encoded:
            events, next_offset = await read()
            made = Encoded(encode(events) if events else b"", next_offset)
            self._keep(key, made)
            return made

        return await self._once(key, make)

    async def _once(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        # Shielded: a device that is cancelled must not cancel the read for the others.
        return await asyncio.shield(self._reading.begin(key, work))

    def _keep(self, key: Hashable, made: Encoded) -> None:
        if self._reading.running.get(key) is not asyncio.current_task():
            return  # `forget` was called since the read began
        self._kept[key] = made
        self._kept_bytes += len(made.chunk) + _ENTRY_BYTES
        while self._kept_bytes > _KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.chunk) + _ENTRY_BYTES
