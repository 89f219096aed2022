"""The compact forms of all sessions: folded behind everybody's back, in small steps, and stored.

Only sessions that have messages that grow, keyed state, or superseded attempts are folded before somebody asks for it: the
compact form of every other one is its log. What is stored is bounded by what there is to say, what is in memory by
`MEMORY_BYTES`.
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
from wakeline.events import Event
from wakeline.gateway.delivery.compact.session import SessionFold
from wakeline.gateway.delivery.compact.snapshot import Snapshot
from wakeline.gateway.delivery.compact.store import erase, prefix
from wakeline.gateway.log import Change, Engine, SessionState
from wakeline.gateway.runtime import supervised

MEMORY_BYTES: Final = 64 * 1024 * 1024
"""What all folds together may take; those that nobody asked for longest are read again when they are needed."""

STORE_SECONDS: Final = 2.0
"""After so long what was folded is stored, however little it is."""

_TURN_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.2
_GROUP: Final = 32
_MOST_SESSIONS: Final = 5_000
_LAST_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


class Compacts:
    """Keeps the compact forms. They are folded while the block lasts.

    Args:
        engine: The log.
        outlives: Tells of a session whether its compact form is kept when retention takes its events.
        memory_bytes: What all folds together may take.
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
        self._dirty: dict[SessionFold, float] = {}  # since when there is something to store
        self._wake = asyncio.Event()
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        engine.feed.listen(self._committed)

    async def __aenter__(self) -> Self:
        self._task = supervised("compact forms", self._work_for_ever)
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._task)
        with suppress(TimeoutError):  # what is not stored is folded again
            async with asyncio.timeout(_LAST_SECONDS):
                for fold in list(self._dirty):
                    await self._advance(fold, store=True)

    async def snapshot(self, session: str, epoch: str, offset: int) -> Snapshot:
        """A session's compact form at an offset, or a later one that the log has reached meanwhile.

        Args:
            session: The session's name.
            epoch: Its life.
            offset: Where the session ends, as far as the caller knows.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
            UnavailableError: The log cannot be read now.
        """
        fold = self._fold(session, epoch)
        snapshot = await fold.snapshot(offset)
        if fold.unsaved:
            self._touch(fold)
        self._make_room(fold)
        return snapshot

    async def store(self, session: str, epoch: str, offset: int) -> int:
        """Store a session's compact form; gives the offset up to which it needs the log no more.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
            UnavailableError: It may not be stored.
        """
        fold = self._fold(session, epoch)
        fold.reach(offset)
        return await fold.advance(store=True)

    def look(self, session: str, epoch: str) -> None:
        """See soon whether what is stored of a session is what is to be kept: who trimmed it may have ended before that."""
        fold = self._folds.get(session)
        if fold is None or fold.epoch == epoch:
            self._touch(self._fold(session, epoch))

    async def forget(self, session: str, epoch: str) -> None:
        """Erase what is stored of a life of a session that is over.

        Raises:
            UnavailableError: Not all of it may be erased; call it again.
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

    def _committed(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
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
            # What is stored may be what is not to be kept any more: it goes soon, whoever joins or does not.
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
            # Whoever publishes one event at a time is followed a few events at a time.
            await asyncio.sleep(_TURN_SECONDS)
            now = asyncio.get_running_loop().time()
            dirty = list(self._dirty.items())
            for start in range(0, len(dirty), _GROUP):  # what they store together is one commit
                group = dirty[start : start + _GROUP]
                await asyncio.gather(
                    *(self._advance(fold, store=now - since >= STORE_SECONDS) for fold, since in group)
                )
            looked = self._make_room()
            if self._dirty or not looked:
                self._wake.set()

    async def _advance(self, fold: SessionFold, *, store: bool) -> None:
        """Fold what a session has to fold; whatever one raises, the others are folded."""
        try:
            await fold.advance(store=store)
        except (SessionNotFoundError, EpochChangedError):
            self._drop(fold)
        except UnavailableError as error:
            _log.warning("a compact form could not be stored", session=fold.session, error=error.message)
            self._drop(fold)  # it is folded again when it is needed
            if fold.unopened and not fold.over:  # what is stored may have to go, whoever needs it
                asyncio.get_running_loop().call_later(STORE_SECONDS, self.look, fold.session, fold.epoch)
        except Exception:  # noqa: BLE001 - what is not stored is folded again by who joins
            _log.exception("a compact form could not be stored", session=fold.session)
            self._drop(fold)
        else:
            if not fold.unsaved:
                self._dirty.pop(fold, None)
            elif store and fold in self._dirty:
                self._dirty[fold] = asyncio.get_running_loop().time()

    def _make_room(self, *kept: SessionFold) -> bool:
        """Forget those that nobody needed longest, while all together take too much; False if it is too soon to look."""
        now = asyncio.get_running_loop().time()
        if now < self._looked_at + _LOOK_SECONDS:
            return False
        self._looked_at = now
        size = sum(fold.size for fold in self._folds.values())
        for fold in list(self._folds.values()):
            if size <= self._memory_bytes and len(self._folds) <= _MOST_SESSIONS:
                break
            if fold not in kept and fold not in self._dirty and not fold.lock.locked():
                size -= fold.size
                self._drop(fold)
        return True
