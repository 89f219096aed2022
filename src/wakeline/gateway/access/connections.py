"""Every connection that is open: how many there may be, and how long one may take to say what it wants.

aiohttp ends a connection that is idle between requests. What it lets through are those that send half a request and stop,
or a byte now and then: here, each is given `header_timeout` for a whole head, and `body_timeout` for each KiB of a body.
Only those that we wait for are looked at; a stream costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog
from aiohttp import web

from wakeline.errors import RequestTimeoutError
from wakeline.gateway.access.addresses import Addresses
from wakeline.gateway.access.connection import Connection
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.settings import Settings

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_BODY_BYTES: Final = 1024
_MAX_FIELD_BYTES: Final = 16 * 1024
# How long the rest of a refused body is read and discarded: a client that still sends it would be reset before it could read
# the answer.
_LINGER_SECONDS: Final = 10.0
_OTHER_FILES: Final = 256
"""Files kept free for everything that is no connection: the log, Temporal, the issuer's keys."""
_log = structlog.get_logger(__name__)


class _Body:
    """A request's body that is waited for."""

    __slots__ = ("due", "received", "request", "scope")

    def __init__(self, request: web.Request, scope: asyncio.Timeout) -> None:
        self.request, self.scope = request, scope
        self.due, self.received = 0.0, 0


class Connections:
    """The connections of one gateway.

    Args:
        settings: How many, and how long we wait.
        addresses: Tells by whom connections are counted.
        metrics: Where they are counted.
    """

    def __init__(self, settings: Settings, addresses: Addresses, metrics: Metrics) -> None:
        files = file_limit()
        self.most = min(settings.max_connections, max(files - _OTHER_FILES, files // 2))
        self._per_address = settings.address_connections
        self._pause = min(1.0, settings.header_timeout / 4, settings.body_timeout / 4)
        self._head_seconds, self._body_seconds = settings.header_timeout, settings.body_timeout
        # Time as we look at it, once a pause. It stands still while the event loop does: what lies unread is not late.
        self._now = 0.0
        self._idle_seconds = settings.idle_timeout
        self._addresses = addresses
        self._metrics = metrics
        self._open: set[Connection] = set()
        self._of: Counter[str] = Counter()
        # Each in the order in which they are due: a look at the first tells whether any is.
        self._heads: dict[Connection, float] = {}
        self._bodies: dict[Connection, _Body] = {}
        self._refused: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def protocol(self, server: web.Server) -> Callable[[], Connection]:
        """What makes a connection's protocol, as `loop.create_server` wants it."""
        loop = asyncio.get_running_loop()
        return lambda: Connection(
            server,
            self,
            loop=loop,
            access_log=None,
            auto_decompress=False,  # nothing is inflated before the caller is known: see http/bodies.py
            keepalive_timeout=self._idle_seconds,
            lingering_time=_LINGER_SECONDS,
            max_field_size=_MAX_FIELD_BYTES,
            max_line_size=_MAX_FIELD_BYTES,
        )

    def admit(self, connection: Connection, peername: object) -> str | None:
        """Count a new connection; gives by whom it is counted (empty for nobody), None if it is one too many."""
        peer = self._addresses.peer(peername) or ""
        if len(self._open) >= self.most:
            self._refused["all"] += 1
            return None
        # `Limits` counts those that are held, and answers that they are too many. This is for who makes connections and asks
        # for nothing, hence twice as many.
        if peer and self._per_address and self._of[peer] >= 2 * self._per_address:
            self._refused["address"] += 1
            return None
        self._open.add(connection)
        self._of[peer] += 1
        self.expect_head(connection)
        return peer

    def release(self, connection: Connection, peer: str) -> None:
        """It has ended."""
        self._open.discard(connection)
        self._heads.pop(connection, None)
        self._of[peer] -= 1
        if not self._of[peer]:
            del self._of[peer]

    def expect_head(self, connection: Connection) -> None:
        """From now on a head is waited for."""
        self._heads.setdefault(connection, self._now + self._pause + self._head_seconds)

    def heard(self, connection: Connection, count: int) -> None:
        """Bytes have come: if they are enough of a body that is waited for, its time begins anew."""
        body = self._bodies.get(connection)
        if body is not None:
            body.received += count
            if body.received >= _BODY_BYTES:
                self._await_body(connection, body)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Watch a request's body while it is handled."""
        connection = request.protocol
        if not isinstance(connection, Connection):  # an application that is served by something else
            return await handler(request)
        self._heads.pop(connection, None)
        connection.request_began()
        try:
            if request.content.is_eof():
                return await handler(request)
            scope = asyncio.timeout(None)
            try:
                async with scope:
                    self._await_body(connection, _Body(request, scope))
                    return await handler(request)
            except TimeoutError:
                if not scope.expired():
                    raise
                if request.writer.output_size and request.transport is not None:
                    request.transport.abort()  # a stream has begun: there is no other way to say it
                raise RequestTimeoutError("the request's body did not come in time") from None
            finally:
                self._bodies.pop(connection, None)
        finally:
            connection.request_over(request.content)

    async def watch(self) -> None:
        """Cut those that take too long, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(self._pause)
            self._now += min(loop.time() - began, 2 * self._pause)
            for cut in (self._cut_head, self._cut_body):
                for _ in iter(cut, False):
                    await asyncio.sleep(0)  # one at a time: thousands may be due, and the others have their turn
            for reason, count in self._refused.items():
                _log.warning("refused connections: too many are open", of=reason, refused=count, open=len(self._open))
                self._metrics.cut.labels(reason).inc(count)
            self._refused.clear()

    def _await_body(self, connection: Connection, body: _Body) -> None:
        self._bodies.pop(connection, None)  # for it goes to the end
        body.due, body.received = self._now + self._pause + self._body_seconds, 0
        self._bodies[connection] = body

    def _cut_head(self) -> bool:
        """Cut the first whose head is due, if any is."""
        if not self._heads:
            return False
        connection, due = next(iter(self._heads.items()))
        if due > self._now:
            return False
        del self._heads[connection]
        self._metrics.cut.labels("headers").inc()
        connection.head_overdue()
        return True

    def _cut_body(self) -> bool:
        """Cut the first whose body is due, if any is and it is not we who keep it waiting."""
        if not self._bodies:
            return False
        connection, body = next(iter(self._bodies.items()))
        if body.due > self._now:
            return False
        del self._bodies[connection]
        transport = body.request.transport
        if body.request.content.is_eof():
            return True  # it has come; what takes its time is the answer
        if transport is not None and not transport.is_reading():
            self._await_body(connection, body)
            return True
        self._metrics.cut.labels("body").inc()
        body.scope.reschedule(0)  # at once
        return True


def file_limit() -> int:
    """How many files this process may open, raised as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
