"""Server-sent events: a plain `EventSource` is a complete client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiohttp import web
from aiohttp.hdrs import ACCEPT

from wakeline.events import Cursor
from wakeline.gateway.device import Device
from wakeline.gateway.hub import Channel, Lane
from wakeline.gateway.log import Engine
from wakeline.gateway.topics import Topics
from wakeline.gateway.transports import frames

BUFFER_BYTES: Final = 64 * 1024
"""Unsent bytes over which a live device goes back to catching up."""

_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
# With a cursor at once: a device that is cut before its first event resumes from here, not from a later `now`.
_OPENING: Final = b": wakeline\nretry: 1000\nid: %b\n\n"


def wanted(request: web.Request) -> bool:
    """Whether the client asks for a stream of events rather than a page."""
    return "text/event-stream" in request.headers.get(ACCEPT, "")


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
        self._writer = request.writer
        self._timeout = timeout
        # With nothing unsent before it, a chunk goes straight to the kernel: the transport's own bookkeeping would be a
        # fifth of the price of a device (docs/decisions/0001-aiohttp-transport-writes.md).
        self._direct = _socket_send(transport) or _take_nothing
        self.put: Callable[[bytes], int] = _take_nothing

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
        self.put = _take_nothing if transport.get_write_buffer_size() else self._direct
        return True

    async def send(self, chunk: bytes) -> None:
        """Write, and return when the connection can take more; one that takes nothing in time is cut."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")
        self.put = _take_nothing  # what is written here may stay with the transport; the order must hold
        if chunk:
            self._transport.write(chunk)
        try:
            async with asyncio.timeout(self._timeout):
                await self._writer.drain()
        except TimeoutError:
            self._transport.abort()
            raise ConnectionAbortedError(f"the client took nothing for {self._timeout} s") from None


def _take_nothing(_: bytes) -> int:
    return 0


def _socket_send(transport: asyncio.WriteTransport) -> Callable[[bytes], int] | None:
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
    engine: Engine,
    channel: Channel,
    offset: int,
    *,
    topics: Topics | None,
    until_settled: bool,
    timeout: float,
) -> web.StreamResponse:
    """Answer with the session's events from `offset` on, for as long as the connection or the session lasts."""
    response = web.StreamResponse(headers=_HEADERS)
    chunked = request.version >= (1, 1)
    if not chunked:
        response.force_close()
    lane = (
        Lane(frames.sse_chunked, frames.chunk(frames.SSE_IDLE), topics)
        if chunked
        else Lane(frames.sse, frames.SSE_IDLE, topics)
    )
    with suppress(ConnectionError):  # the client left or was cut, at whatever moment; it resumes from its cursor
        await response.prepare(request)
        await response.write(_OPENING % str(Cursor(channel.epoch, offset)).encode())
        _give_up_on_silence(request, timeout)
        sink = SseSink(request, timeout)
        await Device(engine, channel, sink, lane, offset, until_settled=until_settled).run()
        # A cursor without an event: one who filters by topic comes back at the session's end, too, and is told to stop.
        await response.write(b"id: %b\n\n" % str(Cursor(channel.epoch, channel.tail)).encode())
        await response.write_eof()
    return response


def _give_up_on_silence(request: web.Request, timeout: float) -> None:
    """Have the kernel end a connection whose peer acknowledges nothing: a device that vanished says no goodbye."""
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport else None
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        # A second handle on the same connection: not every event loop lets options be set through its own.
        with suppress(OSError), socket.fromfd(connection.fileno(), connection.family, connection.type) as handle:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))
