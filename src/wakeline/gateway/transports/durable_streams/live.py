"""Live reading as server-sent events, by a device that also sends positions.

Bytes that devices share are encoded once: the data of a page while they catch up, data and position together while they
are live. The position of a device that catches up is its own, because it depends on where the stream ended at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec
from aiohttp import web

from wakeline.errors import OffsetGoneError
from wakeline.events import Event
from wakeline.gateway.access import expiring
from wakeline.gateway.delivery import Channel, Connection, Device, Lane
from wakeline.gateway.transports import frames
from wakeline.gateway.transports.durable_streams import offsets
from wakeline.gateway.transports.durable_streams.content import Content
from wakeline.gateway.transports.durable_streams.headers import SECURITY
from wakeline.gateway.transports.durable_streams.reading import Asked
from wakeline.gateway.transports.leaving import UntilLeft, farewell
from wakeline.gateway.transports.sse import SseSink, give_up_on_silence


class LiveFrames(msgspec.Struct, frozen=True):
    """Encodes events for live devices: the data, and the position with the stream's end reached.

    Attributes:
        content: The stream's content.
        chunked: Whether to wrap the bytes as a chunk of an HTTP/1.1 chunked body.
    """

    content: Content
    chunked: bool

    def __call__(self, _: str, epoch: str, events: Sequence[Event]) -> bytes:
        """Return the wire form of events."""
        after = events[-1].offset + 1
        return self.framed(self.content.sse(epoch, events) + control(epoch, after, offsets.cursor_after(None)))

    def framed(self, data: bytes) -> bytes:
        """Return bytes as they are written to the connection."""
        return frames.chunk(data) if self.chunked else data


def control(epoch: str, offset: int, cursor: int | None, *, up_to_date: bool = True, closed: bool = False) -> bytes:
    """Return the event that carries a reader's position."""
    fields: dict[str, object] = {"streamNextOffset": offsets.written(epoch, offset)}
    if not closed:
        fields["streamCursor"] = str(cursor)
    if up_to_date:
        fields["upToDate"] = True
    if closed:
        fields["streamClosed"] = True
    return b"event: control\ndata:%b\nid:%b\n\n" % (
        msgspec.json.encode(fields),
        offsets.written(epoch, offset).encode(),
    )


class StreamDevice(Device):
    """A device that reads a stream.

    Args:
        channel: The session's channel.
        sink: The connection.
        shape: Encodes the events.
        offset: The first offset wanted.
        asked: The parameters of the read.
    """

    def __init__(self, channel: Channel, sink: Connection, shape: LiveFrames, offset: int, asked: Asked) -> None:
        super().__init__(channel, sink, Lane(shape, shape.framed(frames.SSE_IDLE), asked.topics), offset)
        self._shape = shape
        self._echoed = asked.echoed
        self._reported: tuple[bool, bool] | None = None

    async def _catch_up(self) -> None:
        """Read and write up to the tail, until the reader knows the end and whether it is closed."""
        channel = self._channel
        self._reported = None
        while not channel.deleted and (self.offset < channel.tail or self._reported != (True, channel.closed)):
            async with self.sink.turn():
                data = b""
                if self.offset < channel.tail:
                    page = await channel.pages.encoded(
                        self.offset, before=channel.tail, topics=self.lane.topics, encode=self._encode, lane=self.lane
                    )
                    data, self.offset = page.chunk, page.next_offset
                # In one write, because some readers do not wait for a position that arrives separately.
                await self.sink.send(self._shape.framed(data + self._position()))

    def _position(self) -> bytes:
        channel = self._channel
        at_end = self.offset >= channel.tail
        closed = at_end and channel.closed
        self._reported = (at_end, closed)
        cursor = offsets.cursor_after(self._echoed)
        return control(channel.epoch, self.offset, cursor, up_to_date=at_end, closed=closed)

    def _encode(self, events: list[Event]) -> bytes:
        return self._shape.content.sse(self._channel.epoch, events)


async def serve(
    request: web.Request, channel: Channel, content: Content, offset: int, asked: Asked, timeout: float
) -> web.StreamResponse:
    """Answer with a stream from `offset` on, for as long as the connection or the stream lasts."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache, no-store",
            "X-Accel-Buffering": "no",
            **SECURITY,
        }
    )
    if content.form == "bytes":
        response.headers["Stream-SSE-Data-Encoding"] = "base64"
    # The client may disconnect or be cut, or retention may pass it. It reconnects with its offset, and is answered then.
    with suppress(ConnectionError, OffsetGoneError):
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        give_up_on_silence(request, timeout)
        shape = LiveFrames(content, request.version >= (1, 1))
        with UntilLeft() as block:
            async with expiring(request):
                sink = SseSink(request, timeout)
                await StreamDevice(channel, sink, shape, offset, asked).run()
        if block.left:
            await response.write(farewell())
        await response.write_eof()
    return response
