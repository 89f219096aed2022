"""A device: one connection that watches one session. It has no queue; the log is the queue.

It is either *catching up* (its own task reads pages from the log and awaits each write, so that TCP paces it) or *live* (its
task sleeps, and the hub writes the shared, already encoded bytes to its transport). A device that has too much unsent when
the hub writes goes back to catching up. Replay at connect and recovery of the slow are the same lines.
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
from wakeline.gateway.delivery.compact import Compacts, Snapshot


class Connection(Sink, Protocol):
    """A device's connection: the hub's sink, and a way to write that waits."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """For one page: begins when what is unsent is sent, before a page is held; who shares the connection waits."""
        ...

    async def send(self, chunk: bytes) -> None:
        """Write, and return when the connection can take more.

        Raises:
            ConnectionError: The connection is gone, or took nothing for too long.
        """
        ...


class Opening(msgspec.Struct, frozen=True, gc=False):
    """What a device is given before the log, from which it then has only what follows.

    Attributes:
        compacts: Where the session's compact form comes from.
        encode: Makes the wire form of its events, which move no cursor.
    """

    compacts: Compacts
    encode: Encode


class Device:
    """Takes one connection through a session: catch up, go live, and again.

    Args:
        channel: The session's channel, attached for as long as the device runs.
        sink: The connection.
        lane: The wire form and topics.
        offset: The first offset the device wants.
        until_settled: End when the session is settled and everything has been written.
        opening: What it is given in place of the log up to now; only for one that begins at the beginning.
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
        """Serve the device until nothing more will come, or it is settled and that was asked for, or the connection is gone."""
        channel = self._channel
        try:
            if self._opening is not None:
                await self._open(self._opening)
            while True:
                await self._catch_up()
                if channel.closed or channel.deleted or (self.until_settled and channel.settled):
                    return
                self._left_live = asyncio.get_running_loop().create_future()
                channel.join(self, self.offset)  # no await since the tail was looked at
                await self._left_live
        except (SessionNotFoundError, EpochChangedError):
            while not channel.deleted:  # the log knew first; the channel is about to be told
                await channel.wait_beyond(channel.tail, 1.0)
        finally:
            self.offset = self.given
            channel.leave(self)

    @property
    def given(self) -> int:
        """Everything that the device wants below this offset has been written."""
        given = self._channel.given(self)
        return self.offset if given is None else given

    def leave_live(self, offset: int) -> None:
        """Called by the hub: everything below `offset` is written, the rest is to be read from the log."""
        self.offset = offset
        if self._left_live is not None and not self._left_live.done():
            self._left_live.set_result(None)

    async def _open(self, opening: Opening) -> None:
        """Give the compact form; the cursor moves with its end, and not before."""
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
            await reached(channel, snapshot)
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


async def reached(channel: Channel, snapshot: Snapshot) -> None:
    """Wait until a channel has come to where a compact form ends: it may be told of an event a moment later."""
    while channel.tail < snapshot.offset and not channel.deleted:
        await channel.wait_beyond(snapshot.offset - 1, 1.0)
