"""A feed: many sessions on one connection, each read by its own device.

The devices of a feed share its connection. The hub writes to live devices at once, as to any other. Devices that catch up
take turns, a page each, so that a session waits for at most one page of each other session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from aiohttp import web

from wakeline.errors import RequestInvalidError
from wakeline.gateway.access import Auth, Grant, Limits
from wakeline.gateway.delivery import Channel, Topics, resolve_start
from wakeline.gateway.inputs import Inputs
from wakeline.gateway.sessions import Arrivals, Core
from wakeline.gateway.transports.sse import BUFFER_BYTES, socket_send


@dataclass(frozen=True, kw_only=True)
class Source(Core):
    """The parts of the gateway that connections use.

    Attributes:
        arrivals: Admits readers to sessions.
        auth: Authenticates callers.
        limits: The limits on each caller.
        inputs: Send inputs; None for a gateway without Temporal.
    """

    arrivals: Arrivals
    auth: Auth
    limits: Limits
    inputs: Inputs | None = None

    async def admit(self, session: str, grant: Grant, *, wait_for_start: bool = False) -> None:
        """Check that a session may be read, and prepare it for the reader; call it before attaching.

        Raises:
            NotAllowedError: The grant does not allow reading.
            SessionNotFoundError: The grant does not reach the session.
        """
        grant.check("read", session)
        await self.arrivals.at(session, grant, wait_for_start=wait_for_start)
        self.metrics.connections.inc()

    async def start(self, channel: Channel, text: str, topics: Topics | None, user: str, device: str | None) -> int:
        """Return the offset that `from` refers to.

        Raises:
            RequestError: It refers to no offset in this session.
        """
        seen: int | None = None
        if text == "device":
            if device is None:
                raise RequestInvalidError("expected device= with from=device")
            seen = await self.positions.seen(channel.session, channel.epoch, user, device)
        return await resolve_start(self.engine, channel, text, topics=topics, seen=seen)

    def connected(
        self, channel: Channel, user: str, name: str | None, offset_of: Callable[[], int], transport: str
    ) -> AbstractContextManager[None]:
        """Store a device's position and announce its presence inside the block, if it has a name."""
        if name is None:
            return nullcontext()
        return self.positions.connected(channel.session, channel.epoch, user, name, offset_of, transport)


class SharedConnection:
    """The one connection of a feed; the feed and its devices write whole frames, in order.

    Args:
        request: The request being answered; its answer is prepared.
        timeout: Seconds in which the client must accept the unsent bytes.
    """

    __slots__ = ("_direct", "_draining", "_ended", "_protocol", "_timeout", "_transport", "_turns", "_writer")

    def __init__(self, request: web.Request, timeout: float) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self._transport: asyncio.WriteTransport = transport
        self._protocol = request.protocol
        self._writer = request.writer
        self._timeout = timeout
        self._ended = False
        self._turns = asyncio.Lock()
        self._draining: asyncio.Future[None] | None = None
        self._direct = socket_send(transport)

    def put(self, chunk: bytes) -> int:
        """Send a chunk to the kernel; return how many bytes the kernel accepted."""
        # The HTTP library writes to the same transport (its pings): a direct send would overtake its unsent bytes.
        if self._direct is None or self._ended or self._transport.get_write_buffer_size():
            return 0
        return self._direct(chunk)

    def takes(self) -> bool:
        """Return whether a live device may write: the connection is open and few bytes are unsent."""
        return not self._gone() and self._transport.get_write_buffer_size() <= BUFFER_BYTES

    def keep(self, chunk: bytes, taken: int) -> bool:
        """Queue the rest of a chunk; return False to send the device back to the log."""
        if not self.takes():
            return False
        self._transport.write(chunk[taken:])
        return True

    async def send(self, chunk: bytes) -> None:
        """Write a page; the holder of the turn has already waited for the bytes before it."""
        if chunk:
            self.write(chunk)

    def write(self, data: bytes) -> None:
        """Write one or more frames.

        Raises:
            ConnectionResetError: The connection is closed.
        """
        if self._gone():
            raise ConnectionResetError("the client has left")
        self._transport.write(data)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Reserve the connection for one page, so that one page at a time is in memory."""
        async with self._turns:
            await self.drained()
            yield

    async def drained(self) -> None:
        """Wait until the connection can accept more.

        Raises:
            ConnectionResetError: The connection is closed.
            ConnectionAbortedError: The client accepted no data for too long.
        """
        if not self._gone() and self._protocol.writing_paused:
            # Concurrent callers share one wait: the library's own breaks for all of them when one is cancelled.
            if self._draining is None or self._draining.done():
                self._draining = asyncio.ensure_future(self._writer.drain())
                self._draining.add_done_callback(lambda done: done.cancelled() or done.exception())
            done, _ = await asyncio.wait((self._draining,), timeout=self._timeout)
            if not done:
                raise ConnectionAbortedError(f"the client accepted no data for {self._timeout} s")
        if self._gone():
            raise ConnectionResetError("the client has left")

    def end(self) -> None:
        """Refuse further writes, so that no device counts later events as delivered."""
        self._ended = True

    def abort(self) -> None:
        """Abort the connection if it is still open."""
        self.end()
        self._transport.abort()
        if self._draining is not None:
            self._draining.cancel()

    def _gone(self) -> bool:
        return self._ended or self._transport.is_closing()
