"""Server-sent events, for which a plain `EventSource` is a complete client."""

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
from wakeline.gateway.transports.leaving import UntilLeft, farewell
from wakeline.gateway.transports.negotiation import quality

BUFFER_BYTES: Final = 64 * 1024
"""Most unsent bytes of a live device; beyond it, the device goes back to catching up."""

EVENT_STREAM: Final = "text/event-stream"
HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
# The first bytes have a cursor: a device that is cut before its first event resumes from here, not from a later `now`.
_OPENING: Final = b": wakeline\nretry: 1000\nid: %b\n\n"


def wanted(request: web.Request) -> bool:
    """Return whether the client names an event stream, with at least the weight of a page."""
    accepted = ",".join(request.headers.getall(ACCEPT, []))
    if accepted == EVENT_STREAM:  # the value that browsers send
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
    """The connection of one answer; writes to it need no task, no copy and no further queue.

    Args:
        request: The request being answered; its answer is prepared.
        timeout: Seconds in which the client must accept the unsent bytes.
    """

    def __init__(self, request: web.Request, timeout: float) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self._transport: asyncio.WriteTransport = transport
        self._protocol = request.protocol
        self._writer = request.writer
        self._timeout = timeout
        # If nothing is unsent, a chunk goes straight to the kernel: the transport's bookkeeping would take a fifth of the
        # time per device (docs/decisions/0001-aiohttp-transport-writes.md).
        self._direct = socket_send(transport) or take_nothing
        self.put: Callable[[bytes], int] = take_nothing

    def keep(self, chunk: bytes, taken: int) -> bool:
        """Pass the rest of a chunk to the transport; return False if over `BUFFER_BYTES` are unsent."""
        transport = self._transport
        if transport.is_closing():
            # The device's own task notices that the connection is closed. uvloop refuses all other calls now.
            return True
        if transport.get_write_buffer_size() > BUFFER_BYTES:
            return False
        transport.write(chunk[taken:])
        self.put = take_nothing if transport.get_write_buffer_size() else self._direct
        return True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Begin a page once all earlier bytes are sent."""
        await self.send(b"")
        yield

    async def send(self, chunk: bytes) -> None:
        """Write a chunk; return when the connection can accept more, or abort it after the timeout."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")
        self.put = take_nothing  # this chunk may stay in the transport's buffer, and a direct send would overtake it
        if chunk:
            self._transport.write(chunk)
        try:
            async with asyncio.timeout(self._timeout):
                await self._writer.drain()
        except TimeoutError:
            if not self._protocol.writing_paused:
                return  # the event loop was blocked for so long; the client has received the bytes by now
            self._transport.abort()
            raise ConnectionAbortedError(f"the client accepted no data for {self._timeout} s") from None


def take_nothing(_: bytes) -> int:
    """Accept no bytes: the `put` of a connection whose bytes all go through its transport."""
    return 0


def socket_send(transport: asyncio.WriteTransport) -> Callable[[bytes], int] | None:
    """Return the `send` of the transport's own socket, which fails once that is closed.

    None over TLS, and with event loops that do not expose their socket (uvloop).
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
    connected: Callable[[Callable[[], int]], AbstractContextManager[None]],
    presence: Presence | None,
    timeout: float,
    compacts: Compacts | None = None,
) -> web.StreamResponse:
    """Answer with events from `offset` on until the connection or the session ends.

    Args:
        request: The request to answer.
        channel: The session's channel.
        offset: The first offset wanted.
        topics: The only topics to send; None for all.
        until_settled: End when the session is settled and everything was written.
        connected: Returns the block for a device's run from the function that returns its offset.
        presence: Source of joins and leaves to send; None to send none.
        timeout: Seconds in which the connection must accept the unsent bytes.
        compacts: Source of the session's compact form to begin with; None to begin with the log.
    """
    response = web.StreamResponse(headers=HEADERS)
    chunked = request.version >= (1, 1)
    lane = (
        Lane(frames.sse_chunked, frames.chunk(frames.SSE_IDLE), topics)
        if chunked
        else Lane(frames.sse, frames.SSE_IDLE, topics)
    )
    opening = None
    if compacts is not None:
        opening = Opening(compacts, frames.sse_compact_chunked if chunked else frames.sse_compact)
    with suppress(ConnectionError):  # the client may disconnect or be cut at any point; it resumes from its cursor
        await response.prepare(request)
        await response.write(_OPENING % str(Cursor(channel.epoch, offset)).encode())
        give_up_on_silence(request, timeout)
        sink = SseSink(request, timeout)
        with UntilLeft() as block:
            async with expiring(request):
                device = Device(channel, sink, lane, offset, until_settled=until_settled, opening=opening)
                with connected(lambda: device.given):
                    if presence is None:
                        await device.run()
                    else:
                        wrap = frames.chunk if chunked else bytes
                        async with _announced(presence, channel.session, lambda data: sink.send(wrap(data))):
                            await device.run()
                # A final cursor without an event: a reader that filters by topic then resumes from the session's end,
                # too, and is answered 204.
                await response.write(b"id: %b\n\n" % str(Cursor(channel.epoch, channel.tail)).encode())
        if block.left:
            await response.write(farewell())
        await response.write_eof()
    return response


@asynccontextmanager
async def _announced(presence: Presence, session: str, send: Callable[[bytes], Awaitable[None]]) -> AsyncIterator[None]:
    """Inside the block, send joins and leaves in between the events."""

    async def announce() -> None:
        with suppress(ConnectionError), presence.watch(session) as watch:
            while True:
                await send(frames.sse_presence(session, await watch.next()))

    announcing = asyncio.ensure_future(announce())
    try:
        yield
    finally:
        announcing.cancel()


def give_up_on_silence(request: web.Request, timeout: float) -> None:
    """Let the kernel end the connection once its peer acknowledges no bytes.

    A device that vanished sends no close.
    """
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport else None
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        # A second handle on the same connection, because some event loops do not allow setting options through theirs.
        with suppress(OSError), socket.fromfd(connection.fileno(), connection.family, connection.type) as handle:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))
