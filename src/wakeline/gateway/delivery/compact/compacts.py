"""The compact forms of all sessions: folded in the background, in small steps, and stored.

Only sessions with growing messages, keyed state or superseded attempts are folded before a device requests the compact form:
that of every other session is its log. `MEMORY_BYTES` bounds the folds in memory; the stored blocks are bounded by the size of
the compact forms.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Self

import structlog

from wakeline.background import cancel_all
from wakeline.compact.fold import is_special
from wakeline.errors import EpochChangedError, SessionNotFoundError, UnavailableError
from wakeline.gateway.delivery.compact.session import SessionFold
from wakeline.gateway.delivery.compact.snapshot import Snapshot
from wakeline.gateway.delivery.compact.store import erase, prefix
from wakeline.gateway.log import Change, Commit, Engine, SessionState
from wakeline.gateway.runtime import Slice, log_failure, supervised

MEMORY_BYTES: Final = 64 * 1024 * 1024
"""The memory of all folds together. The least recently used ones are dropped, and read again when they are needed."""

STORE_SECONDS: Final = 2.0
"""Seconds after which folded events are stored, however few they are."""

_TURN_SECONDS: Final = 0.25
_ROOM_SECONDS: Final = 0.2
_GROUP: Final = 32
_MOST_SESSIONS: Final = 5_000
_LAST_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


class Compacts:
    """Folds and stores compact forms in the background while its context lasts.

    Args:
        engine: The log.
        outlives: Returns whether a session's compact form is kept when retention removes its events. Default: of none.
        memory_bytes: The memory of all folds together. Default: `MEMORY_BYTES`.
    """

    def __init__(
        self,
        engine: Engine,
        outlives: Callable[[SessionState], bool] = lambda _: False,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._engine = engine
        self._outlives = outlives
        self._memory_bytes = memory_bytes
        self._folds: OrderedDict[str, SessionFold] = OrderedDict()
        self._dirty: dict[SessionFold, float] = {}  # folds with something to store, and since when
        self._wake = asyncio.Event()
        self._room_made_at = 0.0
        self._task: asyncio.Task[None] | None = None
        engine.feed.listen(self._committed)

    async def __aenter__(self) -> Self:
        self._task = supervised("compact forms", self._work_for_ever)
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._task)
        with suppress(TimeoutError):  # events that are not stored are folded again after the restart
            async with asyncio.timeout(_LAST_SECONDS):
                for fold in list(self._dirty):
                    await self._advance(fold, store=True)

    async def snapshot(self, session: str, epoch: str, offset: int) -> Snapshot:
        """Return a session's compact form at an offset, or at a later one that the log has reached.

        Args:
            session: The session's name.
            epoch: Its life.
            offset: The session's end, as far as the caller knows.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
            UnavailableError: The log cannot be read now.
        """
        fold = self._fold(session, epoch)
        try:
            snapshot = await fold.snapshot(offset)
            if fold.unsaved:
                self._touch(fold)
            return snapshot
        finally:  # a caller that has left in the middle leaves a fold, too
            self._make_room(fold)

    async def store(self, session: str, epoch: str, offset: int) -> int:
        """Store a session's compact form; return the offset below which it no longer needs the log.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
            UnavailableError: It cannot be stored now.
        """
        fold = self._fold(session, epoch)
        fold.reach(offset)
        return await fold.advance(store=True)

    def look(self, session: str, epoch: str) -> None:
        """Check soon whether a session's stored blocks must be erased.

        The process that trimmed the session may have ended before it erased them.
        """
        fold = self._folds.get(session)
        if fold is None or fold.epoch == epoch:
            self._touch(self._fold(session, epoch))

    async def forget(self, session: str, epoch: str) -> None:
        """Erase the stored blocks of a deleted life of a session.

        Raises:
            UnavailableError: Some blocks could not be erased; call it again.
        """
        fold = self._folds.get(session)
        if fold is not None and fold.epoch == epoch:
            self._drop(fold)
            await fold.end()
        await erase(self._engine, prefix(epoch))

    def _fold(self, session: str, epoch: str) -> SessionFold:
        fold = self._folds.get(session)
        if fold is None or fold.epoch != epoch:
            fold = self._folds[session] = SessionFold(self._engine, session, epoch, self._outlives)
        self._folds.move_to_end(session)
        return fold

    def _committed(self, commits: Sequence[Commit]) -> None:
        for session, epoch, events, changes in commits:
            fold = self._folds.get(session)
            known = fold is not None and fold.epoch == epoch
            if events and (known or any(map(is_special, events))):
                fold = self._fold(session, epoch)
                fold.tell(events)
                self._touch(fold)
            for change in changes:
                self._changed(session, epoch, change)

    def _changed(self, session: str, epoch: str, change: Change) -> None:
        fold = self._folds.get(session)
        if change == "deleted":
            if fold is not None and fold.epoch == epoch:
                fold.over = True
                self._drop(fold)
        elif change in ("configured", "trimmed"):
            # The stored blocks may hold removed events: check them soon, even if no device joins.
            if fold is None or fold.epoch != epoch:
                fold = self._fold(session, epoch)
            fold.begin_anew(trimmed=change == "trimmed")
            self._touch(fold)

    def _touch(self, fold: SessionFold) -> None:
        if fold not in self._dirty:
            self._dirty[fold] = asyncio.get_running_loop().time()
            self._wake.set()

    def _drop(self, fold: SessionFold) -> None:
        if self._folds.get(fold.session) is fold:
            del self._folds[fold.session]
        self._dirty.pop(fold, None)

    async def _work_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            # Wait for more events: to fold a few at once costs as much as to fold one.
            await asyncio.sleep(_TURN_SECONDS)
            now, work = asyncio.get_running_loop().time(), Slice()
            waiting: list[tuple[SessionFold, bool]] = []  # for the store: together, because their writes share a commit
            for fold, since in list(self._dirty.items()):
                if fold.unopened or now - since >= STORE_SECONDS:
                    waiting.append((fold, now - since >= STORE_SECONDS))
                else:
                    await self._advance(fold, store=False)
                    await work.rest()
            for start in range(0, len(waiting), _GROUP):
                group = waiting[start : start + _GROUP]
                await asyncio.gather(*(self._advance(fold, store=store) for fold, store in group))
            made = self._make_room()
            if self._dirty or not made:
                self._wake.set()

    async def _advance(self, fold: SessionFold, *, store: bool) -> None:
        """Fold a session's new events; an error is logged, so that it does not stop the other folds."""
        try:
            await fold.advance(store=store)
        except (SessionNotFoundError, EpochChangedError):
            self._drop(fold)
        except UnavailableError as error:
            log_failure(_log, "a compact form could not be stored", error, session=fold.session)
            self._drop(fold)  # it is folded again when it is needed
            if fold.unopened and not fold.over:  # its stored blocks may have to be erased, even if no device needs it
                asyncio.get_running_loop().call_later(STORE_SECONDS, self.look, fold.session, fold.epoch)
        except Exception:  # noqa: BLE001 - the events are folded again when a device joins
            _log.exception("a compact form could not be stored", session=fold.session)
            self._drop(fold)
        else:
            if not fold.needed:
                self._drop(fold)
            elif not fold.unsaved:
                self._dirty.pop(fold, None)
            elif store and fold in self._dirty:
                self._dirty[fold] = asyncio.get_running_loop().time()

    def _make_room(self, *kept: SessionFold) -> bool:
        """Drop the least recently used folds while all together take too much memory.

        Adding up their sizes takes time in proportion to their number, so it is done at most every `_ROOM_SECONDS`.

        Args:
            kept: Folds that must not be dropped.

        Returns:
            False if the last call was too recent and nothing was done.
        """
        now = asyncio.get_running_loop().time()
        if now < self._room_made_at + _ROOM_SECONDS:
            return False
        self._room_made_at = now
        size = sum(fold.size for fold in self._folds.values())
        for fold in list(self._folds.values()):
            if size <= self._memory_bytes and len(self._folds) <= _MOST_SESSIONS:
                break
            if fold not in kept and fold not in self._dirty and not fold.lock.locked():
                size -= fold.size
                self._drop(fold)
        return True
