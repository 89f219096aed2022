"""The background task that decides and sends the notifications of owned sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Self

import msgspec
import structlog

from wakeline.background import begin, cancel_all, wait_at_most
from wakeline.errors import (
    EpochChangedError,
    RecordConflictError,
    RecordTooLargeError,
    SessionNotFoundError,
    UnavailableError,
)
from wakeline.events import INPUT_RESOLVED
from wakeline.gateway.devices import Positions
from wakeline.gateway.log import Commit, Engine, SessionState
from wakeline.gateway.notifications.deciding import cancelled, decided, due, matched
from wakeline.gateway.notifications.health import Health
from wakeline.gateway.notifications.outbox import Outbox
from wakeline.gateway.notifications.questions import closed, is_about_requests, without_closed
from wakeline.gateway.notifications.quiet import LAG, Quiet
from wakeline.gateway.notifications.rules import Rules
from wakeline.gateway.notifications.sending import Sender
from wakeline.gateway.notifications.values import Box
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.runtime import Timetable, Walk, log_failure, supervised

WALK_SECONDS: Final = 60.0
"""Seconds from one walk over all sessions of a shared store to the next: its notifications of commits may be lost."""

SUBJECT: Final = "notifications"
"""The subject of the hints to other gateways."""

_REMOTE_SECONDS: Final = 0.2  # after an event at another gateway: one turn serves many of them
_TURNS: Final = 16  # sessions that are decided at a time
_WALK_SESSIONS: Final = 100
_MOST_CLOSED: Final = 10_000  # ids of closed requests that are kept for a session with a full box
_REST_SECONDS: Final = 1.0  # after an error, and where a full box waits for its messages
_LONGEST_SLEEP: Final = 1.0  # the wall clock may be set meanwhile
_log = structlog.get_logger(__name__)


class _Topics:
    """The topics that any rule names, as the log filters by them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and self._rules.names_topic(topic)


class _Ahead(msgspec.Struct):
    """The requests that a session's log closes after the cursor of its box.

    Attributes:
        epoch: The session's life.
        offset: The offset up to which the log was read for them.
        closed: Their ids.
    """

    epoch: str
    offset: int
    closed: set[str] = msgspec.field(default_factory=set)


class Notifier:
    """Decides notifications from the log, and sends them, inside the block.

    One task starts turns; a session has at most one turn at a time, and only its turn moves its cursor. Attempts run in
    tasks of their own (`sending.py`), and change only their message.

    Args:
        engine: The log.
        outbox: The stored boxes.
        positions: The devices' positions.
        rules: The rules.
        sender: Sends what is due.
        health: The conditions of channels.
        ownership: Which sessions belong to this gateway.
    """

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        positions: Positions,
        rules: Rules,
        sender: Sender,
        health: Health,
        ownership: Ownership,
    ) -> None:
        self._engine = engine
        self._outbox = outbox
        self._positions = positions
        self._rules = rules
        self._topics = _Topics(rules)
        self._sender = sender
        self._health = health
        self._ownership = ownership
        self._owns = ownership.owns
        self._quiet = Quiet()
        self._times = Timetable[str]()
        self._ahead: dict[str, _Ahead] = {}  # of sessions with a full box
        self._taken: dict[str, bool] = {}  # sessions in a turn: whether they became due again meanwhile
        self._turns: set[asyncio.Task[None]] = set()
        self._walk = Walk(self._check)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._health.load()
        self._sender.listen(self.again)
        self._engine.feed.listen(self._committed)
        self._ownership.listen(self.walk, gains=True)
        self._ownership.wakeups.listen(SUBJECT, lambda session, _: self.again(session, 0.0))
        self._task = supervised("notifications", self._work)
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._task)
        await cancel_all(*self._turns)
        await self._sender.stop()

    def walk(self) -> None:
        """Check all sessions again: this gateway has gained sessions, or may have missed a commit."""
        self._walk.restart()
        self._wake.set()

    def wake(self, session: str) -> None:
        """Have a session's turn now, at whichever gateway owns it: its box was changed by hand."""
        self._ownership.wakeups.wake(SUBJECT, session, "")
        if self._owns(session):
            self.again(session, 0.0)

    def again(self, session: str, at: float) -> None:
        """Have a session's turn at a Unix time, or earlier if it is due earlier."""
        self._times.put_earlier(session, at)
        self._wake.set()

    def _committed(self, commits: Sequence[Commit]) -> None:
        for session, epoch, events, changes in commits:
            if "deleted" in changes:
                self._quiet.forget(session)
            if "appended" in changes and self._owns(session):
                self.again(session, time.time() + _REMOTE_SECONDS)
            if not events or not self._owns(session):
                continue
            if any(self._rules.may_match(event.topic, event.body) for event in events):
                self.again(session, 0.0)
            elif self._quiet.hear(session, epoch, events) % LAG < len(events):
                self.again(session, 0.0)  # only to store the cursor

    async def _work(self) -> None:
        while True:
            now = time.time()
            while len(self._turns) < _TURNS and (session := self._times.pop(now)) is not None:
                self._begin(session)
            # Not while sessions are due and have no turn. Those that are due later are many while a receiver is away.
            if not self._walk.is_over and len(self._turns) < _TURNS:
                await self._walk.go_on()
                continue
            if self._engine.shared:
                self._walk.repeat(WALK_SECONDS)
            await self._sleep()

    async def _sleep(self) -> None:
        """Wait until a session is due, or a turn has ended."""
        next_time = self._times.first()
        seconds = _LONGEST_SLEEP if next_time is None else min(_LONGEST_SLEEP, max(0.0, next_time - time.time()))
        if len(self._turns) >= _TURNS:
            seconds = _LONGEST_SLEEP
        await wait_at_most(seconds, self._wake.wait())
        self._wake.clear()

    def _begin(self, session: str) -> None:
        if session in self._taken:
            self._taken[session] = True
        elif self._owns(session):
            self._taken[session] = False
            begin(self._turn(session), self._turns)

    async def _turn(self, session: str) -> None:
        try:
            at = await self._do(session)
        except (SessionNotFoundError, EpochChangedError):
            at = None
        except RecordConflictError:
            at = 0.0  # an attempt's end or another gateway has changed the box
        except UnavailableError as error:
            log_failure(_log, "notifications wait: the store is unavailable", error, session=session)
            at = time.time() + _REST_SECONDS
        except Exception:  # noqa: BLE001 - an error of one session must not stop the others
            _log.exception("notifications failed", session=session)
            at = time.time() + 10 * _REST_SECONDS
        again = self._taken.pop(session)
        if again or at is not None:
            self._times.put_earlier(session, 0.0 if again or at is None else at)
        self._wake.set()

    async def _do(self, session: str) -> float | None:
        """Match, decide and begin to send; return when the session is due again."""
        self._sender.settle(session)
        state = await self._engine.state(session)
        if state is None:
            self._ahead.pop(session, None)
            return None
        stored = await self._outbox.load(session, state.epoch, first_offset=state.first_offset)
        box = await self._match(state, stored.box)
        changed = box.waiting != stored.box.waiting
        box, now = await self._without_closed(state, box), time.time()
        at = due(box, self._rules)
        if at is not None and at <= now:
            furthest = await self._positions.furthest(session, state.epoch)
            box = cancelled(decided(box, session, self._rules, furthest, now), furthest, now)
        box, ended = self._sender.relieved(box, now)
        changed |= (box.waiting, box.messages) != (stored.box.waiting, stored.box.messages)
        if changed or box.offset - stored.box.offset >= LAG:
            try:
                box = (await self._outbox.save(session, box, revision=stored.revision)).box
            except RecordTooLargeError as error:  # the pending messages that are stored are sent, and leave room
                _log.warning("notifications wait: the record is full", session=session, error=error.message)
                box, ended = stored.box, []
            self._sender.count_ended(session, ended)
            await self._recheck(state)
        elif box.offset > stored.box.offset:
            self._quiet.note(session, state.epoch, stored.box.offset, box.offset)
        times = [self._sender.send(session, box, now)]
        rest = now if ended else now + _REST_SECONDS
        if box.waiting:  # a full box decides the rest when messages have been sent
            at = due(msgspec.structs.replace(box, messages=()), self._rules)
            times.append(at if at is None or at > now else rest)
        if box.offset < state.next_offset:
            times.append(rest)
        return min((one for one in times if one is not None), default=None)

    async def _match(self, state: SessionState, box: Box) -> Box:
        """Return the box after the rest of the log was matched, as far as there is room."""
        while box.offset < state.next_offset:
            start, before = self._quiet.skip(state.session, state.epoch, box.offset)
            if start >= state.next_offset:
                return msgspec.structs.replace(box, offset=start)
            page = await self._engine.read(
                state.session,
                start,
                before=state.next_offset if before is None else before,
                topics=self._topics,
                epoch=state.epoch,
            )
            box = matched(box, state.session, page.events, page.next_offset, self._rules, time.time())
            if box.offset < page.next_offset:
                return box
        return box

    async def _without_closed(self, state: SessionState, box: Box) -> Box:
        """Return a full box without the requests that are closed by events after its cursor."""
        ahead = self._ahead.pop(state.session, None)
        if box.offset >= state.next_offset or not is_about_requests(box):
            return box
        if ahead is None or ahead.epoch != state.epoch:
            ahead = _Ahead(state.epoch, box.offset)
        while ahead.offset < state.next_offset:
            page = await self._engine.read(
                state.session, ahead.offset, before=state.next_offset, topics=(INPUT_RESOLVED,), epoch=state.epoch
            )
            ahead.closed.update(closed(event.json()) for event in page.events)
            ahead.offset = page.next_offset
        if len(ahead.closed) <= _MOST_CLOSED:
            self._ahead[state.session] = ahead
        return without_closed(box, ahead.closed)

    async def _recheck(self, state: SessionState) -> None:
        """Erase the box again if the session was deleted while the box was written."""
        now = await self._engine.state(state.session)
        if now is None or now.epoch != state.epoch:
            await self._outbox.forget(state.session)

    async def _check(self, after: str) -> str | None:
        """Make the next sessions due whose logs go on after their cursors, or whose boxes have work.

        Returns:
            The last session's name, where the walk continues; None at its end.
        """
        states = await self._engine.sessions(after=after, limit=_WALK_SESSIONS)
        owned = {state.session: state for state in states if self._owns(state.session)}
        boxes = await self._outbox.load_all({session: state.epoch for session, state in owned.items()})
        for session, state in owned.items():
            box = boxes.get(session, Box(state.epoch, state.first_offset))
            at = due(box, self._rules)
            if self._quiet.skip(session, state.epoch, box.offset)[0] < state.next_offset:
                at = 0.0
            if at is not None:
                self._times.put_earlier(session, at)
        return states[-1].session if len(states) == _WALK_SESSIONS else None
