"""The feed as server-sent events, which a plain `EventSource` can resume (PROTOCOL.md §5).

The `id:` of each event is the composite cursor: the reader's position in every session of the feed. It differs for each
connection; the rest of an event is encoded once for all.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from hashlib import blake2b
from typing import Final

import msgspec
from aiohttp import web

from wakeline.background import cancel_all
from wakeline.errors import (
    CursorAheadError,
    EpochChangedError,
    SessionNotFoundError,
    TemporalUnavailableError,
    UnavailableError,
    WakelineError,
)
from wakeline.events import Cursor
from wakeline.gateway.access import Grant, expiring
from wakeline.gateway.delivery import Channel, Device, Lane, Topics
from wakeline.gateway.transports import feed_frames, frames, sse
from wakeline.gateway.transports.feed import SharedConnection, Source
from wakeline.gateway.transports.leaving import UntilLeft, farewell

MAX_SESSIONS: Final = 100

_PART: Final = r"([\w-]{8})([a-z2-7]{10}-(?:0|[1-9][0-9]{0,17}))"
_COMPOSITE: Final = re.compile(rf"{_PART}(?:\.{_PART}){{0,{MAX_SESSIONS - 1}}}", re.ASCII)
_PARTS: Final = re.compile(_PART, re.ASCII)


class Reading(msgspec.Struct, frozen=True):
    """A client's parameters of the feed.

    Attributes:
        sessions: The names of the sessions.
        start: `from`, or the composite cursor.
        topics: The only topics to read; None for all.
        until_settled: End when all sessions are settled and read.
        wait_for_start: Wait for sessions that do not exist yet, if the grant allows that.
        device: The device's id, if it has one.
    """

    sessions: Sequence[str]
    start: str
    topics: Topics | None
    until_settled: bool
    wait_for_start: bool
    device: str | None


class _Part:
    """One session of a feed: its part of the composite cursor, and the connection of its device.

    Args:
        feed: The feed.
        session: The session's name.
        text: Where reading begins, in the form of `from`.
    """

    def __init__(self, feed: SseFeed, session: str, text: str) -> None:
        self._feed = feed
        self.session = session
        self.text = text
        self.key = key_of(session)
        self.prefix = feed_frames.sse_prefix(session)
        self.cursor = b""
        self.refused: WakelineError | None = None
        self.unavailable: UnavailableError | None = None
        self.channel: Channel | None = None
        self.offset = 0

    put = staticmethod(sse.take_nothing)  # the hub's bytes lack this connection's ids, so none can be sent as they are

    def keep(self, chunk: bytes, taken: int) -> bool:
        """Write a chunk with this connection's ids; False sends the device back to the log."""
        connection = self._feed.connection
        if not connection.takes():
            return False
        connection.write(self._feed.with_ids(self, chunk))
        return True

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Reserve the connection for a page."""
        return self._feed.connection.turn()

    async def send(self, chunk: bytes) -> None:
        """Write a page."""
        self._feed.connection.write(self._feed.with_ids(self, chunk))

    def stand(self, offset: int) -> None:
        """Record that the reader has everything below `offset`."""
        assert self.channel is not None
        self.offset = offset
        self.cursor = self.key + str(Cursor(self.channel.epoch, offset)).encode()

    def at_end(self, until_settled: bool) -> bool:
        """Return whether the session is over for this reader."""
        channel = self.channel
        if channel is None:
            return True
        ended = channel.closed or (until_settled and channel.settled)
        return ended and self.offset == channel.tail


class SseFeed:
    """One answer with the events of many sessions.

    Args:
        request: The request.
        source: The parts of the gateway that the feed uses.
        grant: The client's permissions.
        asked: The client's parameters.
    """

    connection: SharedConnection

    def __init__(self, request: web.Request, source: Source, grant: Grant, asked: Reading) -> None:
        self._request = request
        self._source = source
        self._grant = grant
        self._asked = asked
        self._chunked = request.version >= (1, 1)
        positions = parse(asked.start)
        self._parts = [
            _Part(self, name, asked.start if positions is None else positions.get(key_of(name), "beginning"))
            for name in asked.sessions
        ]

    async def serve(self) -> web.StreamResponse:
        """Answer for as long as the connection or the sessions last.

        Raises:
            UnavailableError: A session cannot be read now.
            WakelineError: No session can be read.
        """
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(self._open(stack, part) for part in self._parts))
            for part in self._parts:
                if part.unavailable is not None:  # the client repeats the request, and resumes every session
                    raise part.unavailable
            refused = [part.refused for part in self._parts if part.channel is None and part.refused is not None]
            if len(refused) == len(self._parts):
                raise next((error for error in refused if isinstance(error, UnavailableError)), refused[0])
            if not any(part.refused for part in self._parts) and all(
                part.at_end(self._asked.until_settled) for part in self._parts
            ):
                return web.Response(status=204)  # 204 makes an EventSource stop reconnecting
            response = web.StreamResponse(headers=sse.HEADERS)
            with self._source.limits.connection(self._request, self._grant), suppress(ConnectionError):
                # The client may disconnect or be cut at any point; it resumes from its composite cursor.
                await response.prepare(self._request)
                await response.write(b": wakeline\nretry: 1000\n%b" % self._id())
                sse.give_up_on_silence(self._request, self._source.settings.write_timeout)
                self.connection = SharedConnection(self._request, self._source.settings.write_timeout)
                with UntilLeft() as block:
                    await self._stream()
                if block.left:
                    await response.write(farewell())
                await response.write_eof()
            return response

    async def _open(self, stack: AsyncExitStack, part: _Part) -> None:
        try:
            await self._source.admit(part.session, self._grant, wait_for_start=self._asked.wait_for_start)
        except TemporalUnavailableError as error:  # there is no such session: those that there are can be read
            part.refused = self._source.arrivals.explained(error)
            return
        except UnavailableError as error:
            part.unavailable = error
            return
        except WakelineError as error:
            part.refused = self._source.arrivals.explained(error, waited=self._asked.wait_for_start)
            return
        try:
            part.channel = await stack.enter_async_context(self._source.hub.attach(part.session, part.text))
            asked = self._asked
            offset = await self._source.start(part.channel, part.text, asked.topics, self._grant.user, asked.device)
        except (EpochChangedError, CursorAheadError) as error:
            part.refused = error
            offset = 0
        except UnavailableError as error:
            part.unavailable = error
            return
        except WakelineError as error:
            part.refused, part.channel = self._source.arrivals.explained(error), None
            return
        part.stand(offset)

    async def _stream(self) -> None:
        for part in self._parts:
            if part.refused is not None:
                self._write(feed_frames.sse_reset(part.session, part.refused))
        tasks = [asyncio.create_task(self._read(part)) for part in self._parts if part.channel is not None]
        try:
            async with expiring(self._request):
                await self._until_all_are_read(set(tasks))
                # The final positions, without an event: a reader that filters by topic then resumes from the end, too,
                # and is answered 204.
                self._write(self._id())
                await self.connection.drained()
        except ConnectionAbortedError:
            self.connection.abort()
            raise
        finally:
            self.connection.end()
            await cancel_all(*tasks)

    async def _until_all_are_read(self, reading: set[asyncio.Task[None]]) -> None:
        while reading:
            done, reading = await asyncio.wait(
                reading, timeout=self._source.settings.keep_alive, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
            if not done and self.connection.takes():
                self._write(frames.SSE_IDLE)

    async def _read(self, part: _Part) -> None:
        assert part.channel is not None
        lane = Lane(feed_frames.sse, b"", self._asked.topics)
        device = Device(part.channel, part, lane, part.offset, until_settled=self._asked.until_settled)
        gone: WakelineError | None = None
        with self._source.connected(part.channel, self._grant.user, self._asked.device, lambda: device.given, "sse"):
            try:
                await device.run()
            except (SessionNotFoundError, EpochChangedError) as error:
                gone = error
        if part.channel.deleted:
            gone = SessionNotFoundError(f"there is no session {part.session!r}")
        if gone is None:
            part.stand(device.offset)
        else:
            part.cursor = b""
            self._write(feed_frames.sse_reset(part.session, self._source.arrivals.explained(gone, read=False)))

    def with_ids(self, part: _Part, chunk: bytes) -> bytes:
        """Return a session's encoded events with the composite cursor before each of them."""
        start = len(part.prefix)
        pieces: list[bytes] = []
        for event in chunk.split(b"\n\n")[:-1]:
            part.stand(int(event[start : event.index(b",", start)]) + 1)
            pieces += [self._id()[:-1], event, b"\n\n"]
        return self._framed(b"".join(pieces))

    def _write(self, data: bytes) -> None:
        self.connection.write(self._framed(data))

    def _framed(self, data: bytes) -> bytes:
        return frames.chunk(data) if self._chunked else data

    def _id(self) -> bytes:
        """Return the composite cursor as an event without data."""
        return b"id: %b\n\n" % b".".join([part.cursor for part in self._parts if part.cursor])


def key_of(session: str) -> bytes:
    """Return the key that represents a session in composite cursors."""
    return urlsafe_b64encode(blake2b(session.encode(), digest_size=6).digest())


def parse(text: str) -> dict[bytes, str] | None:
    """Return a composite cursor's parts by their sessions' keys; None for other text."""
    if _COMPOSITE.fullmatch(text) is None:
        return None
    return {key.encode(): cursor for key, cursor in _PARTS.findall(text)}
