"""A device: one connection that watches one session. It has no queue; the log is the queue.

It is either *catching up* (its own task reads pages from the log and awaits each write, so that TCP paces it) or *live* (its
task sleeps, and the hub writes the shared, already encoded bytes to its transport). A device that has too much unsent when
the hub writes goes back to catching up. Replay at connect and recovery of the slow are the same lines.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from wakeline.gateway.hub import Channel, Lane, Sink
from wakeline.gateway.log import Engine

_PAGE_EVENTS: Final = 512


class Connection(Sink, Protocol):
    """A device's connection: the hub's sink, and a way to write that waits."""

    async def send(self, chunk: bytes) -> None:
        """Write, and return when the connection can take more.

        Raises:
            ConnectionError: The connection is gone, or took nothing for too long.
        """
        ...


class Device:
    """Takes one connection through a session: catch up, go live, and again.

    Args:
        engine: The log.
        channel: The session's channel, attached for as long as the device runs.
        sink: The connection.
        lane: The wire form and topics.
        offset: The first offset the device wants.
        until_settled: End when the session is settled and everything has been written.
    """

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        sink: Connection,
        lane: Lane,
        offset: int,
        *,
        until_settled: bool = False,
    ) -> None:
        self._engine = engine
        self._channel = channel
        self.sink = sink
        self.lane = lane
        self.offset = offset
        self.until_settled = until_settled
        self._left_live: asyncio.Future[int] | None = None

    async def run(self) -> None:
        """Serve the device until the session is settled, if that was asked for, or the connection is gone."""
        channel = self._channel
        try:
            while True:
                await self._catch_up()
                if self.until_settled and channel.settled:
                    return
                self._left_live = asyncio.get_running_loop().create_future()
                channel.join(self, self.offset)  # no await since the tail was looked at
                self.offset = await self._left_live
        finally:
            channel.leave(self)

    def leave_live(self, offset: int) -> None:
        """Called by the hub: everything below `offset` is written, the rest is to be read from the log."""
        if self._left_live is not None and not self._left_live.done():
            self._left_live.set_result(offset)

    async def _catch_up(self) -> None:
        channel = self._channel
        while self.offset < channel.tail:
            await self.sink.send(b"")  # wait until what is unsent is sent, before a page is held for it
            page = await self._engine.read(
                channel.session, self.offset, before=channel.tail, limit=_PAGE_EVENTS, topics=self.lane.topics
            )
            if page.events:
                await self.sink.send(self.lane.encode(channel.session, channel.epoch, page.events))
            self.offset = page.next_offset
