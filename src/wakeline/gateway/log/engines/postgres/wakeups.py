"""Wake-ups between gateways: notifications of commits, and polls for those that are lost.

One connection of each gateway listens and notifies. It notifies after commits, never in their transactions: PostgreSQL holds a
global lock from a notification to the end of its transaction, so that appends would commit one after the other. A notification
names sessions, not events; a gateway reads the events of the sessions that are watched there.

A notification may be lost: its gateway is killed, the connection is lost, or a pooler does not pass it on. So every gateway also
polls the watched sessions, once a second, and more often while it does not receive its own test notifications.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from wakeline.background import cancel_all, wait_at_most
from wakeline.errors import UnavailableError
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.engines.postgres.target import FAILURES, Connection, Link, Target
from wakeline.gateway.log.engines.postgres.transaction import Life, News
from wakeline.gateway.log.engines.postgres.watches import Watches
from wakeline.gateway.log.feed import Commit, Feed
from wakeline.gateway.log.values import Change
from wakeline.gateway.runtime import supervised
from wakeline.retry import Backoff

CHANNEL: Final = "wakeline"
_NOTIFY: Final = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
_PAUSE: Final = 0.005
_MOST_BYTES: Final = 7_900  # the server's limit is 8,000
_MOST_PAYLOADS: Final = 8
_POLL_SECONDS: Final = 1.0
_POLL_ALONE_SECONDS: Final = 0.1
_TEST_SECONDS: Final = 1.0
_TEST_AGAIN_SECONDS: Final = 30.0
_ROUND_SECONDS: Final = 0.1  # at least, from one round of tests and connections to the next
_log = structlog.get_logger(__name__)


class _Item(msgspec.Struct, frozen=True, array_like=True):
    """The news of one session: its first new offset, and its changes."""

    session: str
    epoch: str
    first: int
    changes: tuple[Change, ...]


class _Notification(msgspec.Struct, frozen=True, array_like=True):
    """A notification of a gateway; without items, all sessions may have changed."""

    gateway: str
    items: tuple[_Item, ...] = ()
    test: str = ""


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(_Notification).decode


class Wakeups:
    """Notifies other gateways of commits, and receives their notifications.

    Args:
        target: The database.
        readers: Send the test notifications.
        watches: The watched sessions.
        feed: Has the listeners to all sessions.

    Attributes:
        works: Whether notifications arrive.
    """

    def __init__(self, target: Target, readers: Readers, watches: Watches, feed: Feed) -> None:
        self.works = False
        self._gateway = secrets.token_hex(6)
        self._link = Link(target)
        self._readers = readers
        self._watches = watches
        self._feed = feed
        self._news: dict[Life, _Item] = {}
        self._any = asyncio.Event()
        self._poll_now = asyncio.Event()
        self._lost = asyncio.Event()
        self._using = asyncio.Lock()  # one statement at a time
        self._tested = ""
        self._passed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, connection: Connection) -> None:
        """Listen on a connection, test that notifications arrive, and start the background tasks."""
        self._link.use(connection)
        with suppress(*FAILURES):
            await self._listen()
        if not self.works:
            _log.warning("PostgreSQL's notifications do not arrive, as through a pooler: watched sessions are polled")
        self._tasks = [
            supervised("listening", self._keep_listening),
            supervised("notifying", self._notify_for_ever),
            supervised("polling", self._poll_for_ever),
        ]

    async def stop(self) -> None:
        """Stop, after a last notification."""
        await cancel_all(*self._tasks)
        with suppress(*FAILURES):
            async with asyncio.timeout(1):
                await self._notify()
        await self._link.close()

    def tell(self, news: Mapping[Life, News]) -> None:
        """Notify the other gateways of commits soon."""
        for (session, epoch), new in news.items():
            first = new.events[0].offset if new.events else new.next_offset
            changes: list[Change] = list(new.changes)
            if new.events:
                changes.append("appended")
            if not changes:
                continue
            before = self._news.get((session, epoch))
            if before is not None:
                first = min(first, before.first)
                changes = [*before.changes, *(change for change in changes if change not in before.changes)]
            self._news[session, epoch] = _Item(session, epoch, first, tuple(changes))
        if self._news:
            self._any.set()

    async def _listen(self) -> None:
        """Listen on a new connection, and test whether notifications arrive."""
        async with self._using:
            connection = await self._link.get()
            connection.add_termination_listener(lambda _: self._lost.set())
            await connection.add_listener(CHANNEL, self._received)
        await self._test()

    async def _test(self) -> None:
        self._tested = secrets.token_hex(6)
        self._passed.clear()
        test = _encode(_Notification(self._gateway, test=self._tested)).decode()
        # From another connection, while this one is idle: a pooler in transaction mode passes a notification on only during
        # a statement, and perhaps to the client that has sent it.
        async with self._using:
            with suppress(UnavailableError):
                await self._readers.fetch(_NOTIFY, CHANNEL, [test])
                await wait_at_most(_TEST_SECONDS, self._passed.wait())
        self.works = self._passed.is_set()

    async def _keep_listening(self) -> None:
        backoff = Backoff(0.1, 2.0)
        while True:
            await wait_at_most(_TEST_AGAIN_SECONDS, self._lost.wait())
            # Whether or not the connection is open: the end of a dropped one is reported while the next one connects.
            self._lost.clear()
            try:
                if self._link.is_open:
                    worked = self.works
                    await self._test()
                    if worked and not self.works:
                        self._link.drop()  # it may be dead, and nobody has noticed
                        self._lost.set()
                else:
                    self.works = False
                    self._poll_now.set()
                    await self._listen()
                    self._poll_now.set()  # notifications were missed
                backoff.reset()
            except FAILURES:
                self.works = False
                self._link.drop()
                self._lost.set()
                await backoff.wait()
            await asyncio.sleep(_ROUND_SECONDS)

    async def _notify_for_ever(self) -> None:
        while True:
            await self._any.wait()
            try:
                await self._notify()
            except FAILURES as error:  # the others poll
                _log.debug("a notification was lost", error=repr(error))
            await asyncio.sleep(_PAUSE)

    async def _notify(self) -> None:
        self._any.clear()
        news, self._news = self._news, {}
        if news and self._link.is_open:
            await self._send(_packed(self._gateway, list(news.values())))

    async def _send(self, notifications: Sequence[_Notification]) -> None:
        async with self._using:
            connection = await self._link.get()
            try:
                await connection.execute(_NOTIFY, CHANNEL, [_encode(one).decode() for one in notifications])
            except TimeoutError:
                self._link.drop()
                raise

    def _received(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        try:
            notification = _decode(str(payload))
        except msgspec.MsgspecError:  # a newer gateway's, or another program's
            self._poll_now.set()
            return
        if notification.gateway == self._gateway:
            if notification.test and notification.test == self._tested:
                self._passed.set()
            return
        if notification.test:
            return
        if not notification.items:
            self._poll_now.set()
        others = [
            item
            for item in notification.items
            if not self._watches.woken(item.session, item.epoch, item.first, item.changes)
        ]
        if others:  # nobody watches them here: listeners to all sessions learn that there is something new
            self._feed.announce_all([Commit(item.session, item.epoch, (), item.changes) for item in others])

    async def _poll_for_ever(self) -> None:
        while True:
            await wait_at_most(_POLL_SECONDS if self.works else _POLL_ALONE_SECONDS, self._poll_now.wait())
            self._poll_now.clear()
            with suppress(UnavailableError):
                await self._watches.poll()


def _packed(gateway: str, items: Sequence[_Item]) -> list[_Notification]:
    """Return notifications within the server's limit; one without items if there are too many."""
    packed: list[list[_Item]] = [[]]
    size = 0
    for item in items:
        length = len(_encode(item)) + 1
        if size + length > _MOST_BYTES - 64:
            if len(packed) == _MOST_PAYLOADS or length > _MOST_BYTES - 64:
                return [_Notification(gateway)]
            packed.append([])
            size = 0
        packed[-1].append(item)
        size += length
    return [_Notification(gateway, tuple(some)) for some in packed]
