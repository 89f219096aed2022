"""A feed: many sessions on one connection, each read by a device of its own.

The devices of a feed share its connection. To those that are live the hub writes at once, as to any other; those that catch
up take turns, a page each, so that no session waits for more than a page of each other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from aiohttp import web

from wakeline.errors import RequestInvalidError
from wakeline.gateway.access import Grant, Limits
from wakeline.gateway.delivery import Channel, Compacts, Device, Hub, Topics, resolve_start
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import Arrivals
from wakeline.gateway.transports.sse import BUFFER_BYTES, socket_send


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a feed asks of the gateway.

    Attributes:
        engine: The log.
        hub: Who is live.
        arrivals: Where every reader of a session passes.
        verify: Makes a grant of a token.
        limits: How much one caller may take.
        positions: How far devices have come.
        presence: Who is there.
        metrics: What is counted.
        keep_alive: Seconds between signs of life.
        timeout: Seconds in which a client must take what is unsent.
        compacts: The sessions' compact forms.
    """

    engine: Engine
    hub: Hub
    arrivals: Arrivals
    verify: Callable[[str], Awaitable[Grant]]
    limits: Limits
    positions: Positions
    presence: Presence
    metrics: Metrics
    keep_alive: float
    timeout: float
    compacts: Compacts

    async def admit(self, session: str, grant: Grant, *, wait_for_start: bool = False) -> None:
        """See that a session may be read, before it is attached.

        Raises:
            NotAllowedError: The grant lets nothing be read.
            SessionNotFoundError: The grant does not reach the session.
        """
        grant.check("read", session)
        await self.arrivals.at(session, grant, wait_for_start=wait_for_start)
        self.metrics.connections.inc()

    async def start(self, channel: Channel, text: str, topics: Topics | None, user: str, device: str | None) -> int:
        """The offset that `from` means.

        Raises:
            RequestError: It means none in this session.
        """
        seen: int | None = None
        if text == "device":
            if device is None:
                raise RequestInvalidError("expected ?device= beside from=device")
            seen = await self.positions.seen(channel.session, channel.epoch, user, device)
        return await resolve_start(self.engine, channel, text, topics=topics, seen=seen)

    def connected(self, channel: Channel, user: str, name: str | None, device: Device) -> AbstractContextManager[None]:
        """Have a device's position kept, and others told that it is there, for as long as the block lasts."""
        if name is None:
            return nullcontext()
        return self.positions.connected(channel.session, channel.epoch, user, name, lambda: device.given)


class SharedConnection:
    """The one connection of a feed, as its devices and the feed itself write to it: whole frames, in order.

    Args:
        request: The request being answered; its answer is prepared.
        timeout: Seconds in which the client must take what is unsent.
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
        """Hand a chunk to the kernel; how much it took."""
        # The HTTP library writes to the same transport (its pings): with anything unsent the order would be lost.
        if self._direct is None or self._ended or self._transport.get_write_buffer_size():
            return 0
        return self._direct(chunk)

    def takes(self) -> bool:
        """Whether a live device may write: the connection is there, and not too much is unsent."""
        return not self._gone() and self._transport.get_write_buffer_size() <= BUFFER_BYTES

    def keep(self, chunk: bytes, taken: int) -> bool:
        """Leave to the transport what the kernel did not take; False if the device must go back to the log."""
        if not self.takes():
            return False
        self._transport.write(chunk[taken:])
        return True

    async def send(self, chunk: bytes) -> None:
        """Write a page; whoever has the turn has waited for what was unsent before it."""
        if chunk:
            self.write(chunk)

    def write(self, data: bytes) -> None:
        """Write one frame or more.

        Raises:
            ConnectionResetError: The connection is gone.
        """
        if self._gone():
            raise ConnectionResetError("the client has left")
        self._transport.write(data)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have the connection for one page: the others that catch up wait, so that one page is held at a time."""
        async with self._turns:
            await self.drained()
            yield

    async def drained(self) -> None:
        """Return when the connection can take more.

        Raises:
            ConnectionResetError: The connection is gone.
            ConnectionAbortedError: It took nothing for too long.
        """
        if not self._gone() and self._protocol.writing_paused:
            # One wait for all: the library's own does not survive it when one of several who wait is cancelled.
            if self._draining is None or self._draining.done():
                self._draining = asyncio.ensure_future(self._writer.drain())
                self._draining.add_done_callback(lambda done: done.cancelled() or done.exception())
            done, _ = await asyncio.wait((self._draining,), timeout=self._timeout)
            if not done:
                raise ConnectionAbortedError(f"the client took nothing for {self._timeout} s")
        if self._gone():
            raise ConnectionResetError("the client has left")

    def end(self) -> None:
        """Write nothing more: devices that are told an event from here on have not been given it."""
        self._ended = True

    def abort(self) -> None:
        """Cut the connection, if it is still there."""
        self.end()
        self._transport.abort()
        if self._draining is not None:
            self._draining.cancel()

    def _gone(self) -> bool:
        return self._ended or self._transport.is_closing()
