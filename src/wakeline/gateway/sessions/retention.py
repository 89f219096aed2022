"""Retention: trims sessions and deletes expired ones, in the background and in small steps.

A session is checked after each commit that may matter to its retention, and all sessions are checked after a start. On a
shared store, where another gateway's commit may not be heard of, a walk over the states of all sessions finds those that have
changed since their last check. The result of a check is stored in the session (its deadline, its first offset), so nothing
depends on a process's memory. A check is idempotent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

import msgspec
import structlog

from wakeline.background import cancel_all
from wakeline.errors import EpochChangedError, SessionNotFoundError, UnavailableError
from wakeline.events import RUN_STARTED, SESSION_CLOSED, SESSION_SETTLED, Event
from wakeline.gateway.delivery import Compacts
from wakeline.gateway.log import Commit, Engine, SessionState
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.runtime import Slice, Walk, log_failure, supervised
from wakeline.gateway.sessions.config import Retention, SessionConfig, decode_config
from wakeline.gateway.sessions.deletion import Deletions
from wakeline.gateway.sessions.runs import Runs

SWEEP_SECONDS: Final = 1.0
WALK_SECONDS: Final = 60.0
"""Seconds from one walk over all sessions of a shared store to the next: its notifications may be lost."""

STEP_EVENTS: Final = 200
"""The most events that one step of trimming removes."""

# Pause after a step, as a multiple of its duration: trimming must keep up with publishers without delaying them.
_PAUSE: Final = 2.0
_MOST_STEPS: Final = 50  # in one check, so that other sessions are checked in between
_WALK_SESSIONS: Final = 100
_DUE_SESSIONS: Final = 100
_MOST_DUE_SESSIONS: Final = 6400  # in one read
_MOST_FAILURES: Final = 10  # in one sweep: each may have taken a time-out
_TURN_SECONDS: Final = 0.02
_POSTPONED_SECONDS: Final = 60.0
_MAX_REMEMBERED: Final = 100_000
_OWN: Final = frozenset({RUN_STARTED, SESSION_SETTLED, SESSION_CLOSED})
_log = structlog.get_logger(__name__)


class _Timed(msgspec.Struct):
    time: datetime


_timed = msgspec.json.Decoder(_Timed)


class _Look(NamedTuple):
    """The life of a session at its last check.

    Attributes:
        epoch: The life.
        mark: Stands for all that a check depends on: the same mark means that nothing has changed since. None if the check
            did not look for an end.
        unlimited: Whether events and bytes have no limits.
    """

    epoch: str
    mark: int | None
    unlimited: bool


class Keeper:
    """The background task that enforces retention.

    Args:
        engine: The log.
        runs: The record of each session's runs: whether a session is settled.
        deletions: Deletes sessions.
        default: The retention of sessions whose config has none.
        metrics: Counts the removed events and sessions.
        compacts: Stores the compact form of trimmed events; None if there are no compact forms.
        owns: Returns whether this gateway enforces the retention of a session. Default: of all sessions.
        clock: Returns the unix time.
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
        self._touched: dict[str, bool] = {}  # sessions to check: whether they may have ended, or begun again
        self._looks: dict[str, _Look] = {}
        self._failed: dict[tuple[str, str], float] = {}  # lives that could not be deleted: when to try again
        self._behind = False
        self._walk = Walk(self._check)
        self._task: asyncio.Task[None] | None = None
        engine.feed.listen(self._committed)

    def retention(self, of: SessionConfig) -> Retention:
        """Return the retention of a session with this config."""
        return self._default if of.retention is None else of.retention

    def start(self) -> None:
        """Start the background task."""
        self._task = supervised("retention", self._sweep_for_ever)

    def walk(self) -> None:
        """Check all sessions again: this gateway has gained sessions, or may have missed a commit."""
        self._walk.restart()

    async def stop(self) -> None:
        """Stop the background task; the next start continues its work."""
        await cancel_all(self._task)

    async def sweep(self) -> None:
        """Check the sessions that have changed, and delete those that are due.

        Raises:
            UnavailableError: The log cannot be read or written now; the next sweep continues.
        """
        self._behind = False
        failures: list[UnavailableError] = []
        for _ in range(len(self._touched)):
            session = next(iter(self._touched))  # the one that has waited longest
            ends = self._touched.pop(session)
            try:
                await self.look(session, ends=ends)
            except UnavailableError as error:  # perhaps of the part of the store that has this session
                self._touched[session] = True
                failures.append(error)
                if len(failures) == _MOST_FAILURES:
                    break
            except asyncio.CancelledError:
                self._touched[session] = True
                raise
            except Exception:  # noqa: BLE001 - an error of one session must not stop the others
                _log.exception("retention failed", session=session)
        try:
            await self._deletions.finish()
        except UnavailableError as error:
            failures.append(error)
        failures += await self._delete_due()
        if failures:
            raise failures[0]

    async def look(self, session: str, *, ends: bool = True) -> None:
        """Check a session: set its deadline, and trim it to its retention.

        Args:
            session: The session's name.
            ends: Whether it may have ended, or begun again, since the last check. Default: True.

        Raises:
            UnavailableError: The log cannot be read or written now.
        """
        state = await self._engine.state(session) if self._owns(session) else None
        if state is None:
            return
        its = decode_config(state.config)
        retention = self.retention(its)
        with suppress(SessionNotFoundError, EpochChangedError):  # the session was deleted meanwhile
            if ends and not its.has_lifetime:  # otherwise its transport sets the deadline
                deadline = await self._deadline(state, retention.age)
                if deadline != state.deadline:
                    await self._engine.configure(session, epoch=state.epoch, deadline=deadline)
            await self._trim(state, retention)
        self._remember(state, retention, ends=ends)

    async def _delete_due(self) -> list[UnavailableError]:
        """Delete this gateway's sessions that are due; return the errors of those that fail.

        The earliest ones may all be another gateway's, or have failed before: then it continues past them, to a limit.
        """
        now, failures, deleted = self._clock(), list[UnavailableError](), 0
        self._failed = {one: until for one, until in self._failed.items() if until > now}
        passed = set(self._failed)
        limit, work = _DUE_SESSIONS, Slice()
        while True:
            due = await self._engine.due(now, limit=limit)
            for session, epoch in due:
                await work.rest()
                if (session, epoch) in passed:
                    continue
                passed.add((session, epoch))
                if not self._owns(session):
                    continue
                try:
                    await self._delete(session, epoch)
                    deleted += 1
                except UnavailableError as error:
                    self._failed[session, epoch] = now + _POSTPONED_SECONDS
                    failures.append(error)
                    if len(failures) == _MOST_FAILURES:
                        return failures
                except Exception:  # noqa: BLE001 - an error of one session must not stop the others
                    _log.exception("retention failed", session=session)
                    self._failed[session, epoch] = now + _POSTPONED_SECONDS
            if len(due) < limit or limit == _MOST_DUE_SESSIONS or deleted >= _DUE_SESSIONS:
                return failures
            limit = min(limit * 2, _MOST_DUE_SESSIONS)

    async def _delete(self, session: str, epoch: str) -> None:
        state = await self._engine.state(session)
        if state is not None and (state.deadline is None or state.deadline > self._clock()):
            return  # it was used, or a run has begun, while others were deleted
        if await self._deletions.delete(session, epoch=epoch, unless_open=True):
            self._metrics.expired.inc()
            return
        state = await self._engine.state(session)
        if state is None or state.epoch != epoch:
            return
        # A run of it is open, so it is not deleted. The end of the run sets the deadline again; but not for a session with a
        # lifetime of its transport's, which is tried again later.
        lifetime = decode_config(state.config).has_lifetime
        later = self._clock() + _POSTPONED_SECONDS if lifetime else None
        with suppress(SessionNotFoundError, EpochChangedError):
            await self._engine.configure(session, epoch=epoch, deadline=later)

    async def _deadline(self, state: SessionState, age: float | None) -> float | None:
        if age is None:
            return None
        own = await self._engine.read_back(state.session, state.next_offset, limit=1, topics=_OWN)
        last = own.events[0] if own.events else None
        # Read the log first: the record of the runs is written a moment after the events that report the same.
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
        while True:
            await asyncio.sleep(_TURN_SECONDS if self._behind or not self._walk.is_over else SWEEP_SECONDS)
            try:
                if not self._walk.is_over:
                    await self._walk.go_on()
                elif self._engine.shared:
                    self._walk.repeat(WALK_SECONDS)
                await self.sweep()
            except UnavailableError as error:
                log_failure(_log, "retention waits: the store is unavailable", error)
                await asyncio.sleep(SWEEP_SECONDS)
            except Exception:  # noqa: BLE001 - the next sweep may succeed
                _log.exception("retention failed")
                await asyncio.sleep(SWEEP_SECONDS)

    async def _check(self, after: str) -> str | None:
        """Mark the next sessions for a check, unless their states show that there is nothing to do.

        Returns:
            The last session's name, where the walk continues; None at its end.
        """
        states = await self._engine.sessions(after=after, limit=_WALK_SESSIONS)
        for state in states:
            look = self._looks.get(state.session)
            if not self._owns(state.session) or (look is not None and look.mark == _mark(state)):
                continue
            if state.first_offset > 0 and self._compacts is not None:
                self._compacts.look(state.session, state.epoch)
            its = decode_config(state.config)
            retention = self.retention(its)
            if _is_kept(state, retention) and (its.has_lifetime or (retention.age is None and state.deadline is None)):
                self._remember(state, retention, ends=True)
            else:
                self._touched[state.session] = True
        return states[-1].session if len(states) == _WALK_SESSIONS else None

    def _committed(self, commits: Sequence[Commit]) -> None:
        for session, epoch, events, changes in commits:
            ends = any(event.topic in _OWN for event in events)
            unlimited = self._is_unlimited(session, epoch)
            if events and (ends or not unlimited):
                self._touch(session, ends=ends)
            for change in changes:
                if change in ("configured", "deleted"):
                    self._looks.pop(session, None)
                    unlimited = False
                if (change == "appended" and not unlimited) or change in ("configured", "closed"):
                    self._touch(session, ends=True)

    def _is_unlimited(self, session: str, epoch: str) -> bool:
        look = self._looks.get(session)
        return look is not None and look.epoch == epoch and look.unlimited

    def _touch(self, session: str, *, ends: bool) -> None:
        self._touched[session] = ends or self._touched.get(session, False)

    def _remember(self, state: SessionState, retention: Retention, *, ends: bool) -> None:
        if len(self._looks) >= _MAX_REMEMBERED:  # forget every other one: a walk in order finds the rest again
            self._looks = dict(islice(self._looks.items(), 0, None, 2))
        unlimited = retention.events is None and retention.bytes is None
        self._looks[state.session] = _Look(state.epoch, _mark(state) if ends else None, unlimited)


def _mark(state: SessionState) -> int:
    return hash((state.epoch, state.next_offset, state.closed, state.config))


def _is_kept(state: SessionState, retention: Retention) -> bool:
    """Return whether a session is within its limits of events and bytes."""
    events, size = retention.events, retention.bytes
    within = events is None or state.next_offset - state.first_offset <= events
    return within and (size is None or state.size <= size)


def _time(event: Event) -> float:
    return _timed.decode(event.json()).time.timestamp()
