"""The fold of one session: it follows the session's log, and is stored in blocks.

The stored blocks reach up to some offset; events after it are folded in memory, and go into the next block. A device that
joins receives both together. After a restart the events after the last block are folded again, at most `BLOCK_EVENTS`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from wakeline.compact.fold import Fold, is_special
from wakeline.compact.plain import PlainRanges, Ranges
from wakeline.errors import EpochChangedError, RecordConflictError, SessionNotFoundError, UnavailableError
from wakeline.events import Event
from wakeline.gateway.delivery.compact import blocks
from wakeline.gateway.delivery.compact.snapshot import Snapshot
from wakeline.gateway.delivery.compact.store import Store, erase, prefix
from wakeline.gateway.delivery.gaps import gap
from wakeline.gateway.log import Engine, SessionState
from wakeline.gateway.runtime import Grouped

BLOCK_EVENTS: Final = 5_000
"""Events after which a block is stored: the most that are folded again after a restart."""

_BLOCK_BYTES: Final = 256 * 1024
_AT_ONCE_BYTES: Final = 512 * 1024  # larger folds are joined in a thread
_TURN_EVENTS: Final = 250  # folded before other tasks of the event loop run
_PENDING_EVENTS: Final = 10_000  # with more, all are dropped and read from the log instead
_PENDING_BYTES: Final = 4 * 1024 * 1024


class SessionFold:
    """The fold of one life of a session.

    Args:
        engine: The log, which also stores the blocks.
        session: The session's name.
        epoch: Its life.
        outlives: Returns whether a session's compact form is kept when retention removes its events.

    Attributes:
        over: Whether this life of the session has ended.
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
        self._wanted = False
        self._created = ""
        self._first_offset = 0
        self._base: Fold | None = None
        self._fresh = Fold()
        self._pending: deque[Event] = deque()
        self._pending_bytes = 0
        self._end = 0
        self._stale = False
        self._snapshot: Snapshot | None = None
        self._making = Grouped[Snapshot](wanted_only=True)

    @property
    def size(self) -> int:
        """The memory of the fold, in bytes, approximately."""
        base = self._base.size if self._base is not None else 0
        return 2 * base * (self._snapshot is not None) + base + self._fresh.size + self._pending_bytes

    @property
    def unsaved(self) -> bool:
        """Whether there are events to fold and store."""
        return self.unopened or (self._stored and self._end > self._fresh.first_offset)

    @property
    def unopened(self) -> bool:
        """Whether the stored blocks must be read, and perhaps erased, before they are used."""
        return self._store is None or self._stale

    @property
    def needed(self) -> bool:
        """Whether the compact form may differ from the log, is stored, or was requested."""
        stored = self._store is not None and self._store.first_offset is not None
        return self.unopened or self._wanted or self._bodies or stored

    @property
    def full(self) -> bool:
        """Whether enough events were folded since the last block for another one."""
        fresh = self._fresh
        return fresh.next_offset - fresh.first_offset >= BLOCK_EVENTS or fresh.size >= _BLOCK_BYTES

    def tell(self, events: Sequence[Event]) -> None:
        """Add events that were just committed; the next `advance` folds them."""
        self._wanted = self._wanted or any(map(is_special, events))
        self._end = max(self._end, events[-1].offset + 1)
        self._pending += events
        self._pending_bytes += sum(len(event.body) for event in events)
        if len(self._pending) > _PENDING_EVENTS or self._pending_bytes > _PENDING_BYTES:
            self._forget_pending()

    def reach(self, offset: int) -> None:
        """Note, for a caller that needs the compact form, that the end is at `offset` or later."""
        self._wanted = True
        self._end = max(self._end, offset)

    def begin_anew(self, *, trimmed: bool) -> None:
        """Reopen the stored blocks before the next use: they may no longer agree with the session.

        Args:
            trimmed: Retention has removed events; otherwise the session's retention may have changed. Blocks with whole plain
                events are kept when the log is trimmed.
        """
        if not (trimmed and self._bodies):
            self._stale = True
            self._snapshot = None

    async def snapshot(self, offset: int) -> Snapshot:
        """Return the compact form at an offset or a later one; concurrent calls share one.

        The work ends when all of its callers are cancelled; a later call continues it.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
        """
        self.reach(offset)
        return await self._making.do(self._make_snapshot)

    async def advance(self, *, store: bool) -> int:
        """Fold the new events, and store them if they fill a block or if `store` is set.

        Returns:
            The offset below which the log is no longer needed: 0, unless plain events are stored too.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
            UnavailableError: The log cannot be read or written now.
        """
        async with self.lock:
            if self._store is None or self._stale:
                await self._open(must_store=True)
            if not self._stored or not self.needed:  # it is folded on demand
                self._forget_pending()
                return 0
            await self._catch_up(must_store=True)
            if store:
                await self._save()
            assert self._store is not None
            return self._store.next_offset if self._bodies and not self._stale else 0

    async def _make_snapshot(self) -> Snapshot:
        async with self.lock:
            await self._check_trimmed()
            await self._catch_up(must_store=False)
            offset = self._fresh.next_offset
            if self._snapshot is not None and self._snapshot.offset == offset:
                return self._snapshot
            if self._base is None:
                self._base = await self._read_base()
            base, fresh = self._base, self._fresh
            if base.size + fresh.size > _AT_ONCE_BYTES:
                joining = asyncio.ensure_future(asyncio.to_thread(_whole, base, fresh))
                try:
                    events, ranges, first = await asyncio.shield(joining)
                finally:
                    await asyncio.wait([joining])  # the lock keeps both folds unchanged until the thread is done
            else:
                events, ranges, first = _whole(base, fresh)
            if first > 0:
                events.insert(0, gap(0, first, self._created))
            snapshot = Snapshot(offset, events, ranges, self._created)
            if not self._stale:
                self._snapshot = snapshot
            return snapshot

    async def _check_trimmed(self) -> None:
        """Reopen the stored blocks if retention has removed events without a notification so far.

        Another gateway's notification may still be on its way. The plain events of this form would be missing in the log, and
        the other gateway may have stored them.
        """
        if self.unopened or self._bodies:
            return
        state = await self._engine.state(self.session)
        if state is not None and state.epoch == self.epoch and state.first_offset > self._first_offset:
            self.begin_anew(trimmed=True)

    async def _read_base(self) -> Fold:
        """Return the fold in the stored blocks; an empty one if there is none."""
        # Another gateway may replace blocks between the reading of the head and of the blocks, so a failed read is repeated.
        # After three failures the blocks are unusable and are erased; the last read is for blocks that were stored since.
        for erasing in (False, False, True, False):
            store, first = self._store, self._fresh.first_offset
            if store is None or store.first_offset is None:
                break
            base = await store.read()
            if base is not None and base.next_offset == first:
                return base
            # Another gateway has joined blocks that were about to be read, or the blocks cannot be used.
            self._stale = True
            if erasing:
                with suppress(RecordConflictError):  # another gateway has replaced them
                    await store.erase()
            await self._catch_up(must_store=False)
        return Fold(self._fresh.first_offset, blocks.plain(bodies=self._bodies))

    @property
    def _bodies(self) -> bool:
        return not isinstance(self._fresh.plain, PlainRanges)

    async def _catch_up(self, *, must_store: bool) -> None:
        """Fold the log up to its known end.

        Args:
            must_store: Raise if a block cannot be stored. Otherwise go on without it: a device can join on a store that
                refuses writes.
        """
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
            if len(events) >= _TURN_EVENTS:
                await asyncio.sleep(0)

    async def _next_events(self) -> list[Event] | None:
        """Return the next events, at most `_TURN_EVENTS`; None if retention has removed them."""
        pending, at = self._pending, self._fresh.next_offset
        while pending and pending[0].offset < at:
            self._pending_bytes -= len(pending.popleft().body)
        if pending and pending[0].offset == at:
            events = [pending.popleft() for _ in range(min(_TURN_EVENTS, len(pending)))]
            self._pending_bytes -= sum(len(event.body) for event in events)
            if events[-1].offset - at == len(events) - 1:
                return events
            self._forget_pending()  # there was no notification of the events in between: only the log has them
        before = pending[0].offset if pending else self._end
        page = await self._engine.read(self.session, at, before=before, limit=_TURN_EVENTS, epoch=self.epoch)
        return page.events if page.began == at else None

    async def _open(self, *, must_store: bool) -> None:
        """Start with the stored blocks if they agree with the retention; otherwise with the log."""
        self._stale = False  # before the first await: a change that arrives meanwhile sets it again
        try:
            await self._begin(must_store=must_store)
        except BaseException:
            self._stale = True  # the state is incomplete: the next call must open again
            raise

    async def _begin(self, *, must_store: bool) -> None:
        store, state, bodies = await self._agreeing(must_store=must_store)
        self._snapshot = self._base = None
        self._created, self._first_offset = state.created, state.first_offset
        self._stored = bodies or state.first_offset == 0
        self._store = store
        at = state.first_offset if store.first_offset is None else store.next_offset
        self._fresh = Fold(at, blocks.plain(bodies=bodies))
        self._end = max(self._end, at)

    async def _agreeing(self, *, must_store: bool) -> tuple[Store, SessionState, bool]:
        """Return the stored blocks that agree with the retention, the session, and the blocks' kind.

        Blocks that disagree are erased. The kind is whether whole plain events are stored.

        Events that retention has removed must leave the blocks too, unless the compact form is kept. In a trimmed session
        the blocks would change with every removed event, so none are stored: it is folded on demand from the kept events.
        """
        while True:
            store = Store(self._engine, self.epoch)
            # The head is read first, so that the state is no older: blocks of a newer state must not be erased.
            await store.open()
            state = await self._engine.state(self.session)
            if state is None or self.over:
                raise SessionNotFoundError(f"there is no session {self.session!r}")
            if state.epoch != self.epoch:
                raise EpochChangedError(
                    f"expected {self.session!r} in epoch {self.epoch}, it lives in epoch {state.epoch}"
                )
            bodies = self._outlives(state)
            stored = bodies or state.first_offset == 0
            agrees = stored and store.bodies == bodies and store.next_offset >= state.first_offset
            if store.first_offset is None or agrees:
                return store, state, bodies
            try:
                await store.erase()
            except RecordConflictError:
                continue  # another gateway has changed the blocks
            except UnavailableError:
                if must_store:
                    raise
                self._stale = True  # the next opening tries to erase them again
            return store, state, bodies

    async def _save(self) -> None:
        fresh, store = self._fresh, self._store
        assert store is not None
        if fresh.next_offset == fresh.first_offset or self.over:
            return
        is_first = store.first_offset is None
        try:
            await store.append(fresh)
        except RecordConflictError:
            self._stale = True  # another gateway has stored a block
            return
        except BaseException:
            # The error may have occurred after the block was stored: then it must not be stored a second time.
            self._stale = self._stale or store.next_offset > fresh.first_offset
            raise
        if is_first and not self.over:  # a later block needs the head, which a deletion at another gateway has removed
            state = await self._engine.state(self.session)
            self.over = state is None or state.epoch != self.epoch
        if self.over:  # the session and its earlier blocks were deleted meanwhile
            await erase(self._engine, prefix(self.epoch))
            raise SessionNotFoundError(f"there is no session {self.session!r}")
        if self._base is not None:
            self._base.extend(fresh)
        self._fresh = Fold(fresh.next_offset, blocks.plain(bodies=store.bodies))

    async def end(self) -> None:
        """End the fold with this life of the session: wait for a running write, and start no other."""
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
