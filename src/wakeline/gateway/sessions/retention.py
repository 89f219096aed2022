"""The keeper: removes what need not be kept any longer, in small steps, behind everybody's back.

A session is looked at when something has become of it, and all of them once after a start: whatever a look finds out is
written down in the session (its deadline, its first offset), so nothing depends on what a process remembers. A look does
the same thing whenever it is done, and however often.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, Self

import msgspec
import structlog

from wakeline.background import cancel_all
from wakeline.errors import EpochChangedError, SessionNotFoundError, UnavailableError
from wakeline.events import RUN_STARTED, SESSION_CLOSED, SESSION_SETTLED, Event
from wakeline.gateway.delivery import Compacts
from wakeline.gateway.log import Change, Engine, SessionState
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions.config import Retention, SessionConfig, decode_config
from wakeline.gateway.sessions.deletion import Deletions
from wakeline.gateway.sessions.runs import Runs

SWEEP_SECONDS: Final = 1.0
WALK_SECONDS: Final = 60.0
"""Seconds between two walks over all sessions of a shared store: wake-ups by other gateways may be lost."""

STEP_EVENTS: Final = 200
_PAUSE: Final = 2.0  # times as long as a step took: it must keep up with whoever publishes, and not be in their way
_MOST_STEPS: Final = 50  # at a time: other sessions have their turn in between
_WALK_SESSIONS: Final = 100
_TURN_SECONDS: Final = 0.02
_POSTPONED_SECONDS: Final = 60.0
_MAX_REMEMBERED: Final = 100_000
_OWN: Final = frozenset({RUN_STARTED, SESSION_SETTLED, SESSION_CLOSED})
_log = structlog.get_logger(__name__)


class _Timed(msgspec.Struct):
    time: datetime


_timed = msgspec.json.Decoder(_Timed)


class Keeper:
    """Keeps sessions as long as they are to be kept.

    Args:
        engine: The log.
        runs: Tells whether a session is settled.
        deletions: Deletes sessions.
        default: What is kept of sessions that say nothing else.
        metrics: Counts what was removed.
        compacts: Keeps the compact form of what goes, where it is to be kept.
        owns: Return whether retention of a session is this gateway's work.
        clock: Tells the unix time.
    """

    def __init__(
        self,
        engine: Engine,
        runs: Runs,
        deletions: Deletions,
        default: Retention,
        metrics: Metrics,
        *,
        compacts: Compacts | None = None,
        owns: Callable[[str], bool] = lambda _: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._runs = runs
        self._deletions = deletions
        self._default = default
        self._metrics = metrics
        self._compacts = compacts
        self._owns = owns
        self._clock = clock
        self._touched: dict[str, bool] = {}  # whether it may have ended, or begun again
        self._unlimited: set[tuple[str, str]] = set()  # lives that may have any number of events and bytes
        self._behind = False
        self._walked: str | None = ""  # the last session that the walk has checked; None: the walk is complete
        self._task: asyncio.Task[None] | None = None
        engine.feed.listen(self._committed)

    def retention(self, of: SessionConfig) -> Retention:
        """What is kept of a session with this config."""
        return self._default if of.retention is None else of.retention

    def start(self) -> None:
        """Begin."""
        self._task = supervised("retention", self._sweep_for_ever)

    def walk(self) -> None:
        """Check all sessions once more: this gateway has gained sessions, or may have missed a commit."""
        self._walked = ""

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop; what is left is done after the next start."""
        await cancel_all(self._task)

    async def sweep(self) -> None:
        """Look at the sessions that something has become of, and delete those that are due.

        Raises:
            UnavailableError: The log cannot be read or written now; what is left is done by the next sweep.
        """
        self._behind = False
        for _ in range(len(self._touched)):
            session = next(iter(self._touched))  # the one that waits longest
            ends = self._touched.pop(session)
            try:
                await self.look(session, ends=ends)
            except UnavailableError:
                self._touched[session] = True
                raise
            except Exception:  # noqa: BLE001 - whatever one session raises, the others are looked at
                _log.exception("retention failed", session=session)
        await self._deletions.finish()
        for session, epoch in await self._engine.due(self._clock()):
            if self._owns(session):
                await self._delete(session, epoch)

    async def look(self, session: str, *, ends: bool = True) -> None:
        """See that no more is kept of a session than is to be kept, and that it is deleted in time.

        Args:
            session: The session's name.
            ends: It may have ended, or begun again, since the last look.

        Raises:
            UnavailableError: The log cannot be read or written now.
        """
        state = await self._engine.state(session) if self._owns(session) else None
        if state is None:
            return
        its = decode_config(state.config)
        retention = self.retention(its)
        self._remember(session, state.epoch, unlimited=retention.events is None and retention.bytes is None)
        with suppress(SessionNotFoundError, EpochChangedError):  # it was deleted meanwhile
            if ends and not its.has_lifetime:  # else its transport says when
                deadline = await self._deadline(state, retention.age)
                if deadline != state.deadline:
                    await self._engine.configure(session, epoch=state.epoch, deadline=deadline)
            await self._trim(state, retention)

    async def _delete(self, session: str, epoch: str) -> None:
        if await self._deletions.delete(session, epoch=epoch, unless_open=True):
            self._metrics.expired.inc()
            return
        state = await self._engine.state(session)
        if state is None or state.epoch != epoch:
            return
        # A run of it is open: its end will set the deadline anew, or its transport's time is over by then.
        lifetime = decode_config(state.config).has_lifetime
        later = self._clock() + _POSTPONED_SECONDS if lifetime else None
        with suppress(SessionNotFoundError, EpochChangedError):
            await self._engine.configure(session, epoch=epoch, deadline=later)

    async def _deadline(self, state: SessionState, age: float | None) -> float | None:
        if age is None:
            return None
        own = await self._engine.read_back(state.session, state.next_offset, limit=1, topics=_OWN)
        last = own.events[0] if own.events else None
        # The log tells first: the record of the runs is written a moment after the events that say the same.
        if last is not None and last.topic != RUN_STARTED:
            return _time(last) + age
        if not state.closed and not await self._runs.settled(state.session):
            return None
        newest = await self._engine.read_back(state.session, state.next_offset, limit=1)
        if newest.events:
            return _time(newest.events[0]) + age
        return datetime.fromisoformat(state.created).timestamp() + age

    async def _trim(self, state: SessionState, retention: Retention) -> None:
        before = state.first_offset
        if retention.events is not None:
            before = max(before, state.next_offset - retention.events)
        if retention.bytes is not None and state.size > retention.bytes:
            within = await self._engine.offset_within(state.session, retention.bytes, epoch=state.epoch)
            before = max(before, within)
        if retention.compact and self._compacts is not None and before > state.first_offset:
            before = min(before, await self._compacts.store(state.session, state.epoch, before))
        first, loop = state.first_offset, asyncio.get_running_loop()
        for _ in range(_MOST_STEPS):
            if first >= before:
                return
            began = loop.time()
            kept = await self._engine.trim(state.session, before, epoch=state.epoch, limit=STEP_EVENTS)
            self._metrics.trimmed.inc(kept - first)
            first = kept
            await asyncio.sleep(_PAUSE * (loop.time() - began))
        self._behind = True
        self._touched.setdefault(state.session, False)

    async def _sweep_for_ever(self) -> None:
        walked = time.monotonic()
        while True:
            await asyncio.sleep(_TURN_SECONDS if self._behind or self._walked is not None else SWEEP_SECONDS)
            try:
                if (after := self._walked) is not None:
                    reached = await self._walk(after)
                    if self._walked == after:  # otherwise another walk has been asked for
                        self._walked = reached
                elif self._engine.shared and time.monotonic() > walked + WALK_SECONDS:
                    walked, self._walked = time.monotonic(), ""
                await self.sweep()
            except UnavailableError as error:
                _log.warning("retention has to wait", error=error.message)
                await asyncio.sleep(SWEEP_SECONDS)
            except Exception:  # noqa: BLE001 - what fails once may work the next time
                _log.exception("retention failed")
                await asyncio.sleep(SWEEP_SECONDS)

    async def _walk(self, after: str) -> str | None:
        """Have the next sessions looked at: an earlier process may have ended before it could. None at the end."""
        states = await self._engine.sessions(after=after, limit=_WALK_SESSIONS)
        owned = [state for state in states if self._owns(state.session)]
        self._touched |= {state.session: True for state in owned}
        for state in owned:
            if state.first_offset > 0 and self._compacts is not None:
                self._compacts.look(state.session, state.epoch)
        return states[-1].session if len(states) == _WALK_SESSIONS else None

    def _committed(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        ends = any(event.topic in _OWN for event in events)
        if events and (ends or (session, epoch) not in self._unlimited):
            self._touch(session, ends=ends)
        for change in changes:
            if change in ("configured", "deleted"):
                self._unlimited.discard((session, epoch))
            if change in ("configured", "closed"):
                self._touch(session, ends=True)

    def _touch(self, session: str, *, ends: bool) -> None:
        self._touched[session] = ends or self._touched.get(session, False)

    def _remember(self, session: str, epoch: str, *, unlimited: bool) -> None:
        if len(self._unlimited) >= _MAX_REMEMBERED:
            self._unlimited.clear()
        (self._unlimited.add if unlimited else self._unlimited.discard)((session, epoch))


def _time(event: Event) -> float:
    return _timed.decode(event.json()).time.timestamp()
