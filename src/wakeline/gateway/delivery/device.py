"""A device: one connection that watches one session. It has no queue; the log is the queue.

It is either *catching up* (its own task reads pages from the log and awaits each write, so that TCP sets the pace) or *live*
(its task sleeps, and the hub writes the shared, encoded bytes to its transport). A device with too many bytes unsent when the
hub writes returns to catching up. So replay at connect and recovery of slow devices are the same code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from wakeline.errors import EpochChangedError, SessionNotFoundError
from wakeline.events import Event
from wakeline.gateway.delivery.channel import Channel, Encode, Lane, Sink
from wakeline.gateway.delivery.compact import Compacts


class Connection(Sink, Protocol):
    """A device's connection: the hub's sink, and writes that wait for the client."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Return a context for reading and writing one page.

        Entering it waits until all earlier bytes are sent, so that no page is held in memory meanwhile. Other devices on the
        same connection wait for its end.
        """
        ...

    async def send(self, chunk: bytes) -> None:
        """Write a chunk, and return when the connection accepts more.

        Raises:
            ConnectionError: The connection is lost, or accepted nothing for too long.
        """
        ...


class Opening(msgspec.Struct, frozen=True, gc=False):
    """The compact form that a device receives first, in place of the log up to now.

    Attributes:
        compacts: Provides the session's compact form.
        encode: Returns the wire form of its events, which do not move the device's cursor.
    """

    compacts: Compacts
    encode: Encode


class Device:
    """Serves one connection that watches a session: catches up, goes live, and catches up again.

    Args:
        channel: The session's channel, attached for as long as the device runs.
        sink: The connection.
        lane: The wire form and topics.
        offset: The first offset to write.
        until_settled: End when the session is settled and everything has been written. Default: False.
        opening: The compact form to write in place of the log up to now, for a device that starts at offset 0; None to write
            the log.
    """

    def __init__(
        self,
        channel: Channel,
        sink: Connection,
        lane: Lane,
        offset: int,
        *,
        until_settled: bool = False,
        opening: Opening | None = None,
    ) -> None:
        self._channel = channel
        self.sink = sink
        self.lane = lane
        self.offset = offset
        self.until_settled = until_settled
        self._opening = opening
        self._left_live: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Serve the device until no more events will come, or `until_settled` ends it.

        Raises:
            ConnectionError: The connection is lost.
        """
        channel = self._channel
        channel.readers += 1
        try:
            if self._opening is not None:
                await self._open(self._opening)
            while True:
                await self._catch_up()
                if channel.closed or channel.deleted or (self.until_settled and channel.settled):
                    return
                self._left_live = asyncio.get_running_loop().create_future()
                channel.join(self, self.offset)  # no await since the offset was compared with the tail
                await self._left_live
        except (SessionNotFoundError, EpochChangedError):
            while not channel.deleted:  # the log reports a deletion first, and the channel a moment later
                await channel.wait_beyond(channel.tail, 1.0)
        finally:
            self.offset = self.given
            channel.leave(self)
            channel.readers -= 1

    @property
    def given(self) -> int:
        """The offset below which everything that the device wants has been written."""
        given = self._channel.given(self)
        return self.offset if given is None else given

    def leave_live(self, offset: int) -> None:
        """Return to catching up from `offset`; the channel has written everything below it."""
        self.offset = offset
        if self._left_live is not None and not self._left_live.done():
            self._left_live.set_result(None)

    async def _open(self, opening: Opening) -> None:
        """Write the compact form.

        The cursor moves with the event at its end, and not before: a device that loses its connection within the compact form
        starts again.
        """
        channel, topics = self._channel, self.lane.topics
        snapshot = await opening.compacts.snapshot(channel.session, channel.epoch, channel.tail)

        def encode(events: Sequence[Event]) -> bytes:
            return opening.encode(channel.session, channel.epoch, events)

        at = 0
        while at < snapshot.offset and not channel.deleted:
            async with self.sink.turn():
                page = await channel.pages.compact(snapshot, at, topics=topics, encode=encode, form=opening.encode)
                if page.chunk:
                    await self.sink.send(page.chunk)
                at = page.next_offset
        if at and not channel.deleted:
            async with self.sink.turn():
                await self.sink.send(self._encode([snapshot.end()]))
            await channel.reach(snapshot.offset)
            self.offset = snapshot.offset

    async def _catch_up(self) -> None:
        channel = self._channel
        while self.offset < channel.tail and not channel.deleted:
            async with self.sink.turn():
                page = await channel.pages.encoded(
                    self.offset, before=channel.tail, topics=self.lane.topics, encode=self._encode, lane=self.lane
                )
                if page.chunk:
                    await self.sink.send(page.chunk)
                self.offset = page.next_offset

    def _encode(self, events: list[Event]) -> bytes:
        return self.lane.encode(self._channel.session, self._channel.epoch, events)
