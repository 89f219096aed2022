"""Server-sent events: a plain `EventSource` is a complete client."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.hdrs import ACCEPT, CACHE_CONTROL, UPGRADE

from wakeline.errors import WakelineError
from wakeline.events import Cursor
from wakeline.gateway.access import expiring
from wakeline.gateway.delivery import Channel, Compacts, Device, Lane, Opening, Topics
from wakeline.gateway.devices import Presence
from wakeline.gateway.transports import frames
from wakeline.gateway.transports.negotiation import quality

BUFFER_BYTES: Final = 64 * 1024
"""Unsent bytes over which a live device goes back to catching up."""

EVENT_STREAM: Final = "text/event-stream"
HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
# With a cursor at once: a device that is cut before its first event resumes from here, not from a later `now`.
_OPENING: Final = b": wakeline\nretry: 1000\nid: %b\n\n"


def wanted(request: web.Request) -> bool:
    """Whether the client asks for a stream of events, by name, and not less than for a page."""
    accepted = ",".join(request.headers.getall(ACCEPT, []))
    if accepted == EVENT_STREAM:  # as browsers ask
        return True
    stream = quality(accepted, EVENT_STREAM) or 0.0
    return stream > 0 and stream >= (quality(accepted, "application/json") or 0.0)


def is_event_source(request: web.Request) -> bool:
    """Whether the client is an `EventSource`, which never reconnects after any status but 200.

    Browsers send these two headers with every `EventSource`; other clients can read a status.
    """
    return (
        request.headers.get(ACCEPT) == EVENT_STREAM
        and "no-cache" in request.headers.get(CACHE_CONTROL, "").lower()
        and UPGRADE not in request.headers
    )


def try_again(error: WakelineError, seconds: float) -> web.Response:
    """Answer an `EventSource` with a temporary error: a stream that ends, so that it reconnects.

    Args:
        error: The error.
        seconds: The delay before its reconnect, which is extended at random to spread them.
    """
    wait = int(1000 * seconds * random.uniform(1, 1.5))
    data = msgspec.json.encode(error.wire())
    return web.Response(body=b"retry: %d\nevent: error\ndata: %b\n\n" % (wait, data), headers=HEADERS)


class SseSink:
    """The connection of one answer, written to directly: no task, no copy and no queue of our own in between.

    Args:
        request: The request being answered; its answer is prepared.
        timeout: Seconds in which a connection must take what is unsent.
    """

    def __init__(self, request: web.Request, timeout: float) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self._transport: asyncio.WriteTransport = transport
        self._protocol = request.protocol
        self._writer = request.writer
        self._timeout = timeout
        # With nothing unsent before it, a chunk goes straight to the kernel: the transport's own bookkeeping would be a
        # fifth of the price of a device (docs/decisions/0001-aiohttp-transport-writes.md).
        self._direct = socket_send(transport) or take_nothing
        self.put: Callable[[bytes], int] = take_nothing

    def keep(self, chunk: bytes, taken: int) -> bool:
        """Leave to the transport what the kernel did not take; False if over `BUFFER_BYTES` are unsent."""
        transport = self._transport
        if transport.is_closing():
            return (
                True  # gone: its own task learns of it and leaves. (uvloop refuses to be asked for anything else now.)
            )
        if transport.get_write_buffer_size() > BUFFER_BYTES:
            return False
        transport.write(chunk[taken:])
        self.put = take_nothing if transport.get_write_buffer_size() else self._direct
        return True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """For one page: begins when what is unsent is sent."""
        await self.send(b"")
        yield

    async def send(self, chunk: bytes) -> None:
        """Write, and return when the connection can take more; one that takes nothing in time is cut."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")
        self.put = take_nothing  # what is written here may stay with the transport; the order must hold
        if chunk:
            self._transport.write(chunk)
        try:
            async with asyncio.timeout(self._timeout):
                await self._writer.drain()
        except TimeoutError:
            if not self._protocol.writing_paused:
                return  # it was we who were stopped for so long, and the client has taken it by now
            self._transport.abort()
            raise ConnectionAbortedError(f"the client took nothing for {self._timeout} s") from None


def take_nothing(_: bytes) -> int:
    """The `put` of a connection whose bytes all go through its transport."""
    return 0


def socket_send(transport: asyncio.WriteTransport) -> Callable[[bytes], int] | None:
    """The `send` of the transport's own socket object, which refuses once the transport has closed it.

    None over TLS, and where the event loop keeps its socket to itself (uvloop).
    """
    if transport.get_extra_info("sslcontext") is not None:
        return None
    send: Callable[[bytes], int] | None = getattr(
        getattr(transport.get_extra_info("socket"), "_sock", None), "send", None
    )
    return send


async def serve(
    request: web.Request,
    channel: Channel,
    offset: int,
    *,
    topics: Topics | None,
    until_settled: bool,
    connected: Callable[[Device], AbstractContextManager[None]],
    presence: Presence | None,
    timeout: float,
    compacts: Compacts | None = None,
) -> web.StreamResponse:
    """Answer with the session's events from `offset` on, for as long as the connection or the session lasts.

    Args:
        request: The request to answer.
        channel: The session's channel.
        offset: The first offset wanted.
        topics: Only these; None for all.
        until_settled: End when the session is settled and everything was written.
        connected: Entered for as long as the device runs.
        presence: Who comes and goes is told from it; None to tell nothing.
        timeout: Seconds in which the connection must take what is unsent.
        compacts: Begin with the session's compact form, from here.
    """
    response = web.StreamResponse(headers=HEADERS)
    chunked = request.version >= (1, 1)
    if not chunked:
        response.force_close()
    lane = (
        Lane(frames.sse_chunked, frames.chunk(frames.SSE_IDLE), topics)
        if chunked
        else Lane(frames.sse, frames.SSE_IDLE, topics)
    )
    opening = None
    if compacts is not None:
        opening = Opening(compacts, frames.sse_compact_chunked if chunked else frames.sse_compact)
    with suppress(ConnectionError):  # the client left or was cut, at whatever moment; it resumes from its cursor
        await response.prepare(request)
        await response.write(_OPENING % str(Cursor(channel.epoch, offset)).encode())
        give_up_on_silence(request, timeout)
        sink = SseSink(request, timeout)
        async with expiring(request):
            device = Device(channel, sink, lane, offset, until_settled=until_settled, opening=opening)
            with connected(device):
                if presence is None:
                    await device.run()
                else:
                    wrap = frames.chunk if chunked else bytes
                    async with _telling(presence, channel.session, lambda told: sink.send(wrap(told))):
                        await device.run()
            # A cursor without an event: who filters by topic comes back at the session's end, too, and is told to stop.
            await response.write(b"id: %b\n\n" % str(Cursor(channel.epoch, channel.tail)).encode())
        await response.write_eof()
    return response


@asynccontextmanager
async def _telling(presence: Presence, session: str, send: Callable[[bytes], Awaitable[None]]) -> AsyncIterator[None]:
    """Tell who comes and goes, beside the events, for as long as the block lasts."""

    async def tell() -> None:
        with suppress(ConnectionError), presence.watch(session) as watch:
            while True:
                await send(frames.sse_presence(session, await watch.next()))

    telling = asyncio.ensure_future(tell())
    try:
        yield
    finally:
        telling.cancel()


def give_up_on_silence(request: web.Request, timeout: float) -> None:
    """Have the kernel end a connection whose peer acknowledges nothing: a device that vanished says no goodbye."""
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport else None
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        # A second handle on the same connection: not every event loop lets options be set through its own.
        with suppress(OSError), socket.fromfd(connection.fileno(), connection.family, connection.type) as handle:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))
