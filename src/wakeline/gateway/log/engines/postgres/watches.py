"""The sessions that are watched at this gateway, and the commits of all gateways to them.

A listener to a session receives each of its events once, in order and without a gap. This gateway's own commits continue
where the listener is, and are passed on at once; if another gateway has appended in between, the events are read from the log
instead. Commits of other gateways are read from the log, for many sessions with one query, after a wake-up or a poll.

One task reads, so that no two reads of a session overlap. A commit that arrives while its session is read, or is about to be,
is left to the read after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

import asyncpg

from wakeline.background import cancel_all
from wakeline.errors import UnavailableError
from wakeline.events import Event
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.engines.postgres.transaction import Life, News
from wakeline.gateway.log.feed import Commit, Feed, Listener
from wakeline.gateway.log.values import Change, SessionState
from wakeline.gateway.runtime import supervised
from wakeline.retry import Backoff

_TOGETHER: Final = 50  # sessions that are read with one query
_NO_SESSION: Final = ""

# `skipped`: as in queries.py. Events are read of the expected life only.
_READ: Final = """
    SELECT w.name, s.epoch, s.first_offset, s.next_offset, s.closed, e.at, e.topic, e.body
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w (name, epoch, next)
    LEFT JOIN wakeline.sessions s ON s.name = w.name AND NOT s.draft
    LEFT JOIN LATERAL (
        SELECT at, topic, body, bytes_before - first_value(bytes_before) OVER (ORDER BY at) AS skipped
        FROM (
            SELECT at, topic, body, bytes_before FROM wakeline.events
            WHERE session = s.id AND s.epoch = w.epoch AND at >= w.next ORDER BY at LIMIT 500
        ) AS page
    ) AS e ON e.skipped < 131072
    ORDER BY w.name, e.at
"""

_TAILS: Final = """
    SELECT w.name, s.epoch, s.first_offset, s.next_offset, s.closed
    FROM unnest($1::text[]) AS w (name) LEFT JOIN wakeline.sessions s ON s.name = w.name AND NOT s.draft
"""


class Tail(NamedTuple):
    """The state of a session as a watch sees it; the epoch is None if there is no session."""

    epoch: str | None
    first_offset: int
    next_offset: int
    closed: bool


@dataclass(slots=True)
class _Watch:
    """How much of a session its listeners have received.

    Attributes:
        epoch: Its life; None while that is not known, empty if there is no session.
        first_offset: The oldest kept offset; -1 while that is not known.
        guessed: Whether it began at a state that no listener has read, which may be newer than what they know.
    """

    epoch: str | None = None
    guessed: bool = False
    first_offset: int = -1
    next_offset: int = 0
    closed: bool = False
    configured: bool = False  # a change that the next read reports

    def begin(self, tail: Tail, *, guessed: bool = False) -> None:
        """Continue from a state, of which the listeners know unless it is `guessed`."""
        self.guessed = guessed
        self.epoch = tail.epoch or _NO_SESSION
        self.first_offset, self.next_offset, self.closed = tail.first_offset, tail.next_offset, tail.closed

    def differs(self, tail: Tail) -> bool:
        """Return whether the session has changed."""
        now = (tail.epoch or _NO_SESSION, tail.first_offset, tail.next_offset, tail.closed)
        return (self.epoch, self.first_offset, self.next_offset, self.closed) != now


class Watches:
    """Passes on the commits to watched sessions, and this gateway's commits to all others.

    Args:
        readers: Read the log.
        feed: Has the listeners.
    """

    def __init__(self, readers: Readers, feed: Feed) -> None:
        self._readers = readers
        self._feed = feed
        self._watches: dict[str, _Watch] = {}
        self._behind: dict[str, None] = {}
        self._reading: dict[str, _Watch] = {}
        self._any = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the background task."""
        self._task = supervised("watched sessions", self._run)

    async def stop(self) -> None:
        """Stop the background task."""
        await cancel_all(self._task)

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit to a session; see `Log.subscribe`."""
        self._watches.setdefault(session, _Watch())
        end = self._feed.subscribe(session, listener)

        def unsubscribe() -> None:
            end()
            if not self._feed.has_listener(session):
                self._watches.pop(session, None)

        return unsubscribe

    def seen(self, session: str, state: SessionState | None) -> None:
        """Note a state that was read after the subscription: the subscriber knows all before it."""
        watch = self._watches.get(session)
        if watch is None or not (watch.epoch is None or watch.guessed):
            return
        if watch.guessed or session in self._reading:
            self._mark(session)  # what came between this state and the other one is still to be reported
        if state is None:
            watch.begin(Tail(None, 0, 0, closed=False))  # so the first that is heard of it is read from its beginning
        else:
            watch.begin(Tail(state.epoch, state.first_offset, state.next_offset, state.closed))

    def committed(self, news: Mapping[Life, News]) -> None:
        """Pass on this gateway's own commits."""
        now: list[Commit] = []
        for (session, epoch), new in news.items():
            if not (new.events or new.changes):
                continue
            watch = self._watches.get(session)
            if watch is None or (
                session not in self._behind and session not in self._reading and _goes_on(watch, epoch, new)
            ):
                now.append(Commit(session, epoch, new.events, new.changes))
            else:
                watch.configured |= "configured" in new.changes
                self._mark(session)
        if now:
            self._feed.announce_all(now)

    def woken(self, session: str, epoch: str, first: int, changes: Sequence[Change]) -> bool:
        """Have a session read; False if it is not watched.

        Another gateway has appended to it from offset `first` on, or has changed it.
        """
        watch = self._watches.get(session)
        if watch is None:
            return False
        if watch.epoch is None and session not in self._reading:
            watch.epoch, watch.next_offset, watch.guessed = epoch, first, True
        watch.configured |= "configured" in changes
        self._mark(session)
        return True

    async def poll(self) -> None:
        """Have all watched sessions read that have changed.

        Raises:
            StorageFailedError: The log cannot be read now.
        """
        names = [name for name in self._watches if name not in self._behind and name not in self._reading]
        if not names:
            return
        before = {name: self._watches[name] for name in names}
        for name, *tail in await self._readers.fetch(_TAILS, names):
            watch = self._watches.get(name)
            if watch is None or watch is not before[name] or name in self._reading:
                continue
            if watch.epoch is None:
                watch.begin(Tail(*tail), guessed=True)
            elif watch.differs(Tail(*tail)):
                self._mark(name)

    def _mark(self, session: str) -> None:
        self._behind[session] = None
        self._any.set()

    async def _run(self) -> None:
        backoff = Backoff(0.05, 1.0)
        while True:
            await self._any.wait()
            names = list(self._behind)[:_TOGETHER]
            if not names:
                self._any.clear()
                continue
            try:
                await self._read(names)
                backoff.reset()
            except UnavailableError:
                await backoff.wait()

    async def _read(self, names: Sequence[str]) -> None:
        """Read the news of sessions, and pass them on."""
        for name in names:
            del self._behind[name]
        self._reading = {name: self._watches[name] for name in names if name in self._watches}
        if not self._reading:
            return
        watches = self._reading.values()
        places = [(watch.epoch or _NO_SESSION, watch.next_offset) for watch in watches]
        try:
            rows = await self._readers.fetch(
                _READ, list(self._reading), [epoch for epoch, _ in places], [offset for _, offset in places]
            )
        except BaseException:
            self._behind |= dict.fromkeys(self._reading)
            self._reading = {}
            raise
        reading, self._reading = self._reading, {}
        asked = dict(zip(reading, places, strict=True))
        for name, of_session in groupby(rows, key=lambda row: str(row[0])):
            watch = reading[name]
            if self._watches.get(name) is not watch:
                continue
            if asked[name] == (watch.epoch or _NO_SESSION, watch.next_offset):
                self._apply(name, watch, list(of_session))
            else:
                self._mark(name)  # it was read from another place than where the listeners are

    def _apply(self, session: str, watch: _Watch, rows: Sequence[asyncpg.Record]) -> None:
        tail = Tail(*rows[0][1:5])
        if watch.epoch is None:
            watch.begin(tail, guessed=True)
            return
        if watch.epoch != (tail.epoch or _NO_SESSION):
            if watch.epoch:
                self._feed.announce(session, watch.epoch, changes=["deleted"])
            watch.epoch, watch.closed, watch.first_offset = tail.epoch or _NO_SESSION, False, tail.first_offset
            watch.next_offset = tail.first_offset
            if tail.epoch is not None and session in self._watches:
                self._mark(session)  # the events of the next life
            return
        if tail.epoch is None:
            return
        events = [Event(row[5], row[6], row[7]) for row in rows if row[5] is not None]
        watch.next_offset = events[-1].offset + 1 if events else max(watch.next_offset, tail.first_offset)
        changes: list[Change] = ["trimmed"] if -1 < watch.first_offset < tail.first_offset else []
        watch.first_offset = tail.first_offset
        if watch.configured:
            changes.append("configured")
            watch.configured = False
        if watch.next_offset < tail.next_offset:
            self._mark(session)  # this was a page of them
        elif tail.closed and not watch.closed:
            watch.closed = True
            changes.append("closed")
        if events or changes:
            self._feed.announce(session, tail.epoch, events, changes)


def _goes_on(watch: _Watch, epoch: str, new: News) -> bool:
    """Continue with a commit of this gateway; return False if events are missing before it."""
    if watch.guessed:
        return False
    if new.begins and not watch.epoch:
        watch.begin(Tail(epoch, -1, new.next_offset, closed=False))
    elif watch.epoch not in (None, epoch):
        return False
    elif new.events:
        if watch.epoch is not None and new.events[0].offset != watch.next_offset:
            return False
        watch.epoch, watch.next_offset = epoch, new.next_offset
    elif "deleted" not in new.changes:
        if watch.epoch is None:
            return True
        if watch.next_offset != new.next_offset:  # no event may follow the end of the session
            return False
    watch.closed |= "closed" in new.changes
    if "trimmed" in new.changes:
        watch.first_offset = -1
    if "deleted" in new.changes:
        watch.epoch = _NO_SESSION
    return True
