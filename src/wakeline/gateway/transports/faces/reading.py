"""Reads a session into a conversation: its compact form first, then the log as it grows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from wakeline.errors import SessionNotFoundError
from wakeline.events import Event
from wakeline.gateway.delivery import Channel, Compacts, Topics
from wakeline.gateway.runtime import Slice
from wakeline.gateway.transports.faces.conversation import Conversation
from wakeline.gateway.transports.faces.parts import Part, Turn

QUIET: Final = 0.3
"""Seconds without a change of its turn after which an answer ends that may still get parts.

A run asks for several approvals one after the other, and the last output of a workflow's own stream is read after its
update has completed.
"""

IDLE: Final = b":\n\n"


class Reader:
    """Adds a session's events to a conversation.

    Args:
        channel: The session's channel, attached for as long as the reader is used.
        conversation: The conversation.
        topics: The only topics to read; None for all.

    Attributes:
        offset: The offset of the next event.
    """

    def __init__(self, channel: Channel, conversation: Conversation, topics: Topics | None) -> None:
        self.conversation = conversation
        self.offset = 0
        self._channel = channel
        self._topics = None if topics is None else topics.of_compact_view()

    @property
    def session(self) -> str:
        """The session's name."""
        return self._channel.session

    @property
    def tail(self) -> int:
        """The offset of the next event that the session gets."""
        return self._channel.tail

    @property
    def is_at_end(self) -> bool:
        """Whether nothing can follow: the session is closed, and all of it was read."""
        return self._channel.closed and self.offset >= self._channel.tail

    async def open(self, compacts: Compacts) -> None:
        """Add the compact form of the session as it is now."""
        channel = self._channel
        if channel.tail == 0:
            return
        snapshot = await compacts.snapshot(channel.session, channel.epoch, channel.tail)
        at = 0
        while at < snapshot.offset and not channel.deleted:
            events, at = await channel.pages.folded(snapshot, at, topics=self._topics)
            await self._add(events)
        await channel.reach(snapshot.offset)
        self.offset = snapshot.offset

    async def more(self, seconds: float) -> bool:
        """Add the events that have come, or that come first within some seconds.

        Returns:
            Whether any came.

        Raises:
            SessionNotFoundError: The session was deleted.
        """
        channel = self._channel
        if self.offset >= channel.tail:
            await channel.wait_beyond(self.offset, seconds)
        if channel.deleted:
            raise SessionNotFoundError(f"session {channel.session!r} was deleted")
        if self.offset >= channel.tail:
            return False
        page = await channel.pages.read(self.offset, before=channel.tail, topics=self._topics)
        await self._add(page.events)
        self.offset = page.next_offset
        return True

    async def _add(self, events: Sequence[Event]) -> None:
        work = Slice()
        for event in events:
            self.conversation.add(event)
            await work.rest()


class Encoder(Protocol):
    """Shows a turn in a protocol.

    Attributes:
        is_over: Whether the answer ends before its turn, because the protocol has no words for a change.
    """

    is_over: bool

    def begin(self, turn: Turn) -> bytes:
        """Return the beginning of an answer, and everything that the turn has so far."""
        ...

    def advance(self, turn: Turn, changed: Sequence[Part]) -> bytes:
        """Return the bytes that show what has changed; empty if nothing did."""
        ...

    def end(self, turn: Turn) -> bytes:
        """Return the end of an answer: of a turn that has ended, or that waits for people."""
        ...


async def encoded_turn(reader: Reader, turn: Turn, encoder: Encoder, keep_alive: float) -> AsyncIterator[bytes]:
    """Yield an answer: the turn so far, then what comes, until it ends or waits for people.

    Args:
        reader: Reads the session; its conversation has the turn.
        turn: The turn.
        encoder: Shows it.
        keep_alive: Seconds after which an idle connection gets a comment.
    """
    conversation = reader.conversation
    conversation.changes()
    yield encoder.begin(turn)
    quiet = _Quiet(reader)
    while not encoder.is_over:
        settles = turn.is_waiting or not turn.is_running
        if not turn.is_running and turn.certain:
            break
        if not settles:
            quiet = _Quiet(reader)
        elif quiet.is_over:
            break
        if await reader.more(quiet.seconds if settles else keep_alive):
            changed = conversation.changes()
            if turn.reset is not None or any(conversation.turn_of(part) is turn for part in changed):
                quiet = _Quiet(reader)
            if chunk := encoder.advance(turn, changed):
                yield chunk
        elif not settles:
            yield IDLE
    if not encoder.is_over:
        yield encoder.end(turn)


class _Quiet:
    """The time after a change of a turn.

    The events of other turns do not prolong it: the activity of a stopped answer may still write.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._tail = reader.tail
        self._until = time.monotonic() + QUIET

    @property
    def seconds(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._until - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether it has passed, and all events were read that the session had when it began."""
        return self.seconds == 0 and self._reader.offset >= self._tail


async def idle_until(reader: Reader, holds: Callable[[], bool], keep_alive: float) -> AsyncIterator[bytes]:
    """Read until a condition holds or the session closes; yield comments while it is idle."""
    while not holds() and not reader.is_at_end:
        if not await reader.more(keep_alive):
            yield IDLE
