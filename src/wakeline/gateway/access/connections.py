"""All open connections: how many there may be, and how long each may take to send a request.

aiohttp closes connections that are idle between requests, but keeps those that send half a request and stop, or a byte
now and then. Here, each has `header_timeout` for a whole head, and `body_timeout` for each KiB of a body. Only
connections with an incomplete request are checked; an open stream costs nothing.
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
from wakeline.gateway.access.connection import HttpConnection
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.settings import Settings

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_BODY_BYTES: Final = 1024
_MAX_FIELD_BYTES: Final = 16 * 1024
# A client that still sends a refused body would be reset before it could read the answer, so the rest of the body is
# read and discarded for this long.
_LINGER_SECONDS: Final = 10.0
_OTHER_FILES: Final = 256
"""Files kept free for other uses than connections: the log, Temporal, the issuer's keys."""
_log = structlog.get_logger(__name__)


class _Body:
    """A request's body that has not arrived completely."""

    __slots__ = ("due", "received", "request", "scope")

    def __init__(self, request: web.Request, scope: asyncio.Timeout) -> None:
        self.request, self.scope = request, scope
        self.due, self.received = 0.0, 0


class Connections:
    """The connections of one gateway.

    Args:
        settings: The limits and timeouts.
        addresses: Determines the address that a connection counts for.
        metrics: Counts the connections that are cut.
    """

    def __init__(self, settings: Settings, addresses: Addresses, metrics: Metrics) -> None:
        files = file_limit()
        self.most = min(settings.max_connections, max(files - _OTHER_FILES, files // 2))
        self._per_address = settings.address_connections
        self._pause = min(1.0, settings.header_timeout / 4, settings.body_timeout / 4)
        self._head_seconds, self._body_seconds = settings.header_timeout, settings.body_timeout
        # Advanced once a pause, by at most two pauses: bytes that wait unread while the event loop is blocked are not late.
        self._now = 0.0
        self._idle_seconds = settings.idle_timeout
        self._addresses = addresses
        self._metrics = metrics
        self._open: set[HttpConnection] = set()
        self._of: Counter[str] = Counter()
        # Both in the order in which they are due, so that checking the first suffices.
        self._heads: dict[HttpConnection, float] = {}
        self._bodies: dict[HttpConnection, _Body] = {}
        self._refused: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._open)

    def protocol(self, server: web.Server) -> Callable[[], HttpConnection]:
        """Return the protocol factory for `loop.create_server`."""
        loop = asyncio.get_running_loop()
        return lambda: HttpConnection(
            server,
            self,
            loop=loop,
            access_log=None,
            auto_decompress=False,  # nothing is decompressed before the caller is authenticated: see http/bodies.py
            keepalive_timeout=self._idle_seconds,
            lingering_time=_LINGER_SECONDS,
            max_field_size=_MAX_FIELD_BYTES,
            max_line_size=_MAX_FIELD_BYTES,
        )

    def admit(self, connection: HttpConnection, peername: object) -> str | None:
        """Count a connection; return the address it counts for (or ""), None to refuse it."""
        peer = self._addresses.peer(peername) or ""
        if len(self._open) >= self.most:
            self._refused["all"] += 1
            return None
        # `Limits` answers callers that hold too many connections. This limit is for callers that open connections and
        # send no request; it is twice as high, so that others receive that answer.
        if peer and self._per_address and self._of[peer] >= 2 * self._per_address:
            self._refused["address"] += 1
            return None
        self._open.add(connection)
        self._of[peer] += 1
        self.expect_head(connection)
        return peer

    def release(self, connection: HttpConnection, peer: str) -> None:
        """Remove a connection that has ended."""
        self._open.discard(connection)
        self._heads.pop(connection, None)
        self._of[peer] -= 1
        if not self._of[peer]:
            del self._of[peer]

    def expect_head(self, connection: HttpConnection) -> None:
        """Start the time limit for a request's head."""
        self._heads.setdefault(connection, self._now + self._pause + self._head_seconds)

    def heard(self, connection: HttpConnection, count: int) -> None:
        """Count bytes of a body; each KiB restarts its time limit."""
        body = self._bodies.get(connection)
        if body is not None:
            body.received += count
            if body.received >= _BODY_BYTES:
                self._await_body(connection, body)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Limit the time that a request's body may take while the request is handled."""
        connection = request.protocol
        if not isinstance(connection, HttpConnection):  # another server runs the application
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
                    request.transport.abort()  # a stream has begun, so an error can no longer be answered
                raise RequestTimeoutError("the request's body did not arrive in time") from None
            finally:
                self._bodies.pop(connection, None)
        finally:
            connection.request_over(request.content)

    async def watch(self) -> None:
        """Cut slow connections and log refused ones, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(self._pause)
            self._now += min(loop.time() - began, 2 * self._pause)
            for cut in (self._cut_head, self._cut_body):
                for _ in iter(cut, False):
                    await asyncio.sleep(0)  # thousands may be due: other tasks run in between
            for reason, count in self._refused.items():
                _log.warning("refused connections: too many are open", of=reason, refused=count, open=len(self._open))
                self._metrics.cut.labels(reason).inc(count)
            self._refused.clear()

    def _await_body(self, connection: HttpConnection, body: _Body) -> None:
        self._bodies.pop(connection, None)  # so that it moves to the end
        body.due, body.received = self._now + self._pause + self._body_seconds, 0
        self._bodies[connection] = body

    def _cut_head(self) -> bool:
        """Cut the connection whose head is due first; return whether one was due."""
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
        """Cut the request whose body is due first, unless the gateway itself has paused reading it.

        Returns:
            Whether one was due.
        """
        if not self._bodies:
            return False
        connection, body = next(iter(self._bodies.items()))
        if body.due > self._now:
            return False
        del self._bodies[connection]
        transport = body.request.transport
        if body.request.content.is_eof():
            return True  # the body is complete; the handler is still working on the answer
        if transport is not None and not transport.is_reading():
            self._await_body(connection, body)
            return True
        self._metrics.cut.labels("body").inc()
        body.scope.reschedule(0)  # at once
        return True


def file_limit() -> int:
    """Return how many files this process may open, after raising the limit as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
