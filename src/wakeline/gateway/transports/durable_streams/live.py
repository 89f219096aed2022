"""Live as server-sent events: a device as every other, that says after each stretch where it stands.

What devices share is made once: the data of a page while they catch up, data and position together while they are live. While
one catches up the position is its own, for it tells whether that was the stream's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec
from aiohttp import web

from wakeline.errors import OffsetGoneError
from wakeline.events import Event
from wakeline.gateway.access import expiring
from wakeline.gateway.delivery import Channel, Connection, Device, Lane, Topics
from wakeline.gateway.transports import frames
from wakeline.gateway.transports.durable_streams import offsets
from wakeline.gateway.transports.durable_streams.content import Content
from wakeline.gateway.transports.durable_streams.headers import SECURITY
from wakeline.gateway.transports.sse import SseSink, give_up_on_silence


class LiveFrames(msgspec.Struct, frozen=True):
    """Makes what live devices are written: the data, and that this is the stream's end for now.

    Attributes:
        content: What the stream holds.
        chunked: As a chunk of an HTTP/1.1 chunked body.
    """

    content: Content
    chunked: bool

    def __call__(self, _: str, epoch: str, events: Sequence[Event]) -> bytes:
        """The wire form of events."""
        after = events[-1].offset + 1
        return self.framed(self.content.sse(epoch, events) + control(epoch, after, offsets.cursor_after(None)))

    def framed(self, data: bytes) -> bytes:
        """Bytes as they go to the connection."""
        return frames.chunk(data) if self.chunked else data


def control(epoch: str, offset: int, cursor: int | None, *, up_to_date: bool = True, closed: bool = False) -> bytes:
    """The event that tells a reader where it stands."""
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
        shape: What is written.
        offset: The first offset wanted.
        topics: Only these topics; None for all.
        echoed: The cursor that the reader echoed.
    """

    def __init__(
        self,
        channel: Channel,
        sink: Connection,
        shape: LiveFrames,
        offset: int,
        *,
        topics: Topics | None,
        echoed: int | None,
    ) -> None:
        super().__init__(channel, sink, Lane(shape, shape.framed(frames.SSE_IDLE), topics), offset)
        self._shape = shape
        self._echoed = echoed
        self._told: tuple[bool, bool] | None = None

    async def _catch_up(self) -> None:
        """Read and write up to the tail, until the reader knows that it is there, and whether that is for good."""
        channel = self._channel
        self._told = None
        while not channel.deleted and (self.offset < channel.tail or self._told != (True, channel.closed)):
            async with self.sink.turn():
                data = b""
                if self.offset < channel.tail:
                    page = await channel.pages.encoded(
                        self.offset, before=channel.tail, topics=self.lane.topics, encode=self._encode, lane=self.lane
                    )
                    data, self.offset = page.chunk, page.next_offset
                # In one piece: some readers do not wait for a position that comes by itself.
                await self.sink.send(self._shape.framed(data + self._position()))

    def _position(self) -> bytes:
        channel = self._channel
        at_end = self.offset >= channel.tail
        closed = at_end and channel.closed
        self._told = (at_end, closed)
        cursor = offsets.cursor_after(self._echoed)
        return control(channel.epoch, self.offset, cursor, up_to_date=at_end, closed=closed)

    def _encode(self, events: list[Event]) -> bytes:
        return self._shape.content.sse(self._channel.epoch, events)


async def serve(
    request: web.Request,
    channel: Channel,
    content: Content,
    offset: int,
    *,
    topics: Topics | None,
    echoed: int | None,
    timeout: float,
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
    chunked = request.version >= (1, 1)
    if not chunked:
        response.force_close()
    # The client left or was cut, or retention was faster than it: it comes back with its offset, and is told.
    with suppress(ConnectionError, OffsetGoneError):
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        give_up_on_silence(request, timeout)
        shape = LiveFrames(content, chunked)
        async with expiring(request):
            await StreamDevice(channel, SseSink(request, timeout), shape, offset, topics=topics, echoed=echoed).run()
        await response.write_eof()
    return response
