"""Reads a session into a conversation: its compact form first, then the log as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from wakeline.errors import SessionNotFoundError
from wakeline.gateway.delivery import Channel, Compacts, Topics
from wakeline.gateway.transports.faces.conversation import Conversation
from wakeline.gateway.transports.faces.parts import Part, Turn

QUIET: Final = 0.3
"""Seconds without an event after which an answer ends that may still get parts.

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
            for event in events:
                self.conversation.add(event)
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
        for event in page.events:
            self.conversation.add(event)
        self.offset = page.next_offset
        return True


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
    reader.conversation.changes()
    yield encoder.begin(turn)
    while not encoder.is_over:
        settles = turn.is_waiting or not turn.is_running
        if not turn.is_running and turn.certain:
            break
        came = await reader.more(QUIET if settles else keep_alive)
        if came:
            if chunk := encoder.advance(turn, reader.conversation.changes()):
                yield chunk
        elif settles:
            break
        else:
            yield IDLE
    if not encoder.is_over:
        yield encoder.end(turn)


async def idle_until(reader: Reader, holds: Callable[[], bool], keep_alive: float) -> AsyncIterator[bytes]:
    """Read until a condition holds or the session closes; yield comments while it is idle."""
    while not holds() and not reader.is_at_end:
        if not await reader.more(keep_alive):
            yield IDLE
