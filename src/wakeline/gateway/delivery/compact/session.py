"""One session's fold: kept up with its log, stored now and then, and given to those who join.

What is stored reaches up to the last block; what was folded since is in memory, and goes into the next one. A joiner gets
both together. After a restart the rest of the log is folded again, which is never much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from wakeline.compact.fold import Fold
from wakeline.compact.plain import PlainRanges, Ranges
from wakeline.errors import EpochChangedError, RecordConflictError, SessionNotFoundError, UnavailableError
from wakeline.events import Event
from wakeline.gateway.delivery.compact import blocks
from wakeline.gateway.delivery.compact.snapshot import Snapshot
from wakeline.gateway.delivery.compact.store import Store
from wakeline.gateway.delivery.gaps import gap
from wakeline.gateway.log import Engine, SessionState
from wakeline.gateway.runtime import Grouped

BLOCK_EVENTS: Final = 5_000
"""After so many events they are stored: the most that is folded again by who joins first after a restart."""

_BLOCK_BYTES: Final = 256 * 1024
_AT_ONCE_BYTES: Final = 512 * 1024  # put together without leaving the loop
_TURN_EVENTS: Final = 250  # folded before the loop gets a turn
_PENDING_EVENTS: Final = 10_000  # what is more is read from the log again
_PENDING_BYTES: Final = 4 * 1024 * 1024


class SessionFold:
    """The fold of one life of a session.

    Args:
        engine: The log, and where blocks are stored.
        session: The session's name.
        epoch: Its life.
        outlives: Tells of a session whether its compact form is kept when retention takes its events.

    Attributes:
        over: This life of the session is over.
    """

    def __init__(self, engine: Engine, session: str, epoch: str, outlives: Callable[[SessionState], bool]) -> None:
        self.session = session
        self.epoch = epoch
        self.over = False
        self.lock = asyncio.Lock()
        self._engine = engine
        self._outlives = outlives
        self._store: Store | None = None
        self._stored = False
        self._created = ""
        self._base: Fold | None = None
        self._fresh = Fold()
        self._pending: deque[Event] = deque()
        self._pending_bytes = 0
        self._end = 0
        self._stale = False
        self._snapshot: Snapshot | None = None
        self._making = Grouped[Snapshot]()

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        base = self._base.size if self._base is not None else 0
        return 2 * base * (self._snapshot is not None) + base + self._fresh.size + self._pending_bytes

    @property
    def unsaved(self) -> bool:
        """Whether there is something to fold and store."""
        return self.unopened or (self._stored and self._end > self._fresh.first_offset)

    @property
    def unopened(self) -> bool:
        """Whether what is stored may be what is not to be kept."""
        return self._store is None or self._stale

    @property
    def full(self) -> bool:
        """Whether what was folded is enough for a block."""
        fresh = self._fresh
        return fresh.next_offset - fresh.first_offset >= BLOCK_EVENTS or fresh.size >= _BLOCK_BYTES

    def tell(self, events: Sequence[Event]) -> None:
        """Take events that were just committed; they are folded by the next `advance`."""
        self._end = max(self._end, events[-1].offset + 1)
        self._pending += events
        self._pending_bytes += sum(len(event.body) for event in events)
        if len(self._pending) > _PENDING_EVENTS or self._pending_bytes > _PENDING_BYTES:
            self._forget_pending()

    def reach(self, offset: int) -> None:
        """The session has got to an offset, at least."""
        self._end = max(self._end, offset)

    def begin_anew(self, *, trimmed: bool) -> None:
        """Retention has taken events, or is to keep something else of the session: what is here may be wrong."""
        if not (trimmed and self._bodies):
            self._stale = True
            self._snapshot = None

    async def snapshot(self, offset: int) -> Snapshot:
        """The compact form at an offset, or a later one. Made once for all who ask meanwhile.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
        """
        self.reach(offset)
        return await self._making.do(self._make_snapshot)

    async def advance(self, *, store: bool) -> int:
        """Fold what is there to fold, and store it if there is enough or `store`.

        Returns:
            The offset up to which the log is no longer needed: 0, unless plain events are stored too.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
            UnavailableError: The log cannot be read or written now.
        """
        async with self.lock:
            if self._store is None or self._stale:
                await self._open(must_store=True)
            if not self._stored:  # it is folded when it is asked for
                self._forget_pending()
                return 0
            await self._catch_up(must_store=True)
            if store:
                await self._save()
            assert self._store is not None
            return self._store.next_offset if self._bodies and not self._stale else 0

    async def _make_snapshot(self) -> Snapshot:
        async with self.lock:
            await self._catch_up(must_store=False)
            offset = self._fresh.next_offset
            if self._snapshot is not None and self._snapshot.offset == offset:
                return self._snapshot
            if self._base is None:
                self._base = await self._read_base()
            base, fresh = self._base, self._fresh
            if base.size + fresh.size > _AT_ONCE_BYTES:  # in a thread, so that the loop has its turns; the lock is ours
                events, ranges, first = await asyncio.to_thread(_whole, base, fresh)
            else:
                events, ranges, first = _whole(base, fresh)
            if first > 0:
                events.insert(0, gap(0, first, self._created))
            snapshot = Snapshot(offset, events, ranges, self._created)
            if not self._stale:
                self._snapshot = snapshot
            return snapshot

    async def _read_base(self) -> Fold:
        """What is stored."""
        for erasing in (False, False, True, False):  # after that it may have been stored anew
            store, first = self._store, self._fresh.first_offset
            if store is None or store.first_offset is None:
                break
            base = await store.read()
            if base is not None and base.next_offset == first:
                return base
            # Another gateway has put blocks together that were about to be read; or what is stored is of no use.
            self._stale = True
            if erasing:
                await store.erase()
            await self._catch_up(must_store=False)
        return Fold(self._fresh.first_offset, blocks.plain(bodies=self._bodies))

    @property
    def _bodies(self) -> bool:
        return not isinstance(self._fresh.plain, PlainRanges)

    async def _catch_up(self, *, must_store: bool) -> None:
        """Fold the log up to what is known of its end; what cannot be stored now keeps nobody from joining."""
        may_store = True
        if self._store is None or self._stale:
            await self._open(must_store=must_store)
        while self._fresh.next_offset < self._end:
            events = await self._next_events()
            if events is None:
                await self._open(must_store=must_store)
                continue
            for event in events:
                self._fresh.add(event)
            if not events:
                return
            self._snapshot = None
            if self._stored and self.full and may_store:
                try:
                    await self._save()
                except UnavailableError:
                    if must_store:
                        raise
                    may_store = False
            await asyncio.sleep(0)

    async def _next_events(self) -> list[Event] | None:
        """The events that follow; None if they are gone."""
        pending, at = self._pending, self._fresh.next_offset
        while pending and pending[0].offset < at:
            self._pending_bytes -= len(pending.popleft().body)
        if pending and pending[0].offset == at:
            events = [pending.popleft() for _ in range(min(_TURN_EVENTS, len(pending)))]
            self._pending_bytes -= sum(len(event.body) for event in events)
            if events[-1].offset - at == len(events) - 1:
                return events
            self._forget_pending()  # something in between was not told: only the log has it
        before = pending[0].offset if pending else self._end
        page = await self._engine.read(self.session, at, before=before, limit=_TURN_EVENTS, epoch=self.epoch)
        return page.events if page.began == at else None

    async def _open(self, *, must_store: bool) -> None:
        """Begin with what is stored, if it is what is to be kept; else with the log."""
        self._stale = False  # from here on, whatever is told makes it so again
        try:
            await self._begin(must_store=must_store)
        except BaseException:
            self._stale = True  # half of it is done: the next one begins anew
            raise

    async def _begin(self, *, must_store: bool) -> None:
        state = await self._engine.state(self.session)
        if state is None or self.over:
            raise SessionNotFoundError(f"there is no session {self.session!r}")
        if state.epoch != self.epoch:
            raise EpochChangedError(f"expected {self.session!r} in epoch {self.epoch}, it lives in epoch {state.epoch}")
        self._snapshot = self._base = None
        self._created = state.created
        bodies = self._outlives(state)
        # What retention has taken must be gone from here, too, unless this is to be kept. It is folded anew then, from
        # what is left, for whoever joins: storing it would be work for every event that goes.
        self._stored = bodies or state.first_offset == 0
        store = self._store = Store(self._engine, self.epoch)
        await store.open()
        there = store.first_offset is not None
        if there and (not self._stored or store.bodies != bodies or store.next_offset < state.first_offset):
            try:
                await store.erase()
            except UnavailableError:
                if must_store:
                    raise
                self._stale = True  # it goes when it may
        at = state.first_offset if store.first_offset is None else store.next_offset
        self._fresh = Fold(at, blocks.plain(bodies=bodies))
        self._end = max(self._end, at)

    async def _save(self) -> None:
        fresh, store = self._fresh, self._store
        assert store is not None
        if fresh.next_offset == fresh.first_offset or self.over:
            return
        try:
            await store.append(fresh)
        except RecordConflictError:
            self._stale = True  # another gateway has stored it
            return
        except BaseException:
            # What failed may have come after it was stored: then it must not be stored a second time.
            self._stale = self._stale or store.next_offset > fresh.first_offset
            raise
        if self.over:  # it was deleted meanwhile, and with it what was stored before
            await store.erase()
            return
        if self._base is not None:
            self._base.extend(fresh)
        self._fresh = Fold(fresh.next_offset, blocks.plain(bodies=store.bodies))

    async def end(self) -> None:
        """This life is over: nothing is stored any more."""
        self.over = True
        async with self.lock:
            pass

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0


def _whole(base: Fold, fresh: Fold) -> tuple[list[Event], Ranges, int]:
    """Return the events, plain ranges and first offset of two neighbouring folds together."""
    whole = base.copy()
    whole.extend(fresh.copy())
    return whole.events(), _ranges(whole), whole.first_offset


def _ranges(fold: Fold) -> Ranges:
    return fold.plain.ranges if isinstance(fold.plain, PlainRanges) else ()
