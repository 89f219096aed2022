"""The unsent events of one publisher, with their sequence numbers and the flushes that wait."""

from __future__ import annotations

import asyncio

from wakeline.buffer import Buffer
from wakeline.errors import SequenceGapError, WakelineError
from wakeline.publisher.errors import PublisherClashError
from wakeline.publisher.frames import MAX_BATCH_BYTES


class Batch:
    """Events under way: the sequence number of the first, if it is known, and their JSON."""

    __slots__ = ("bodies", "sequence")

    def __init__(self, sequence: int | None, bodies: list[bytes]) -> None:
        self.sequence = sequence
        self.bodies = bodies


class Outbox:
    """The buffer, the batch under way, and the sequence numbers.

    Args:
        buffer: The events that wait.
    """

    def __init__(self, buffer: Buffer[bytes]) -> None:
        self.buffer = buffer
        self.sequence: int | None = None
        """The sequence number of the next batch's first event; None until the gateway has returned it."""
        self.batch: Batch | None = None
        """The batch under way."""
        self._pieces: list[list[bytes]] = []  # of a refused batch, in reverse order
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self._dropped = 0  # places that are done as soon as the batch under way is

    def has_something(self) -> bool:
        """Return whether events wait or are under way."""
        return self.batch is not None or self.has_more()

    def has_more(self) -> bool:
        """Return whether events wait."""
        return bool(self._pieces) or len(self.buffer) > 0

    def may_wait(self, most: int) -> bool:
        """Return whether the next batch may linger: it is not full, and no flush waits."""
        return not self._pieces and len(self.buffer) < most and not self._flushes

    def cut(self, most: int) -> Batch:
        """Take out the next batch of at most `most` events and put it under way."""
        # `most` bytes less, for the comma after each event.
        bodies = self._pieces.pop() if self._pieces else self.buffer.take(most, MAX_BATCH_BYTES - most)
        self.batch = Batch(self.sequence, bodies)
        if self.sequence is not None:
            self.sequence += len(bodies)
        return self.batch

    def finish(self) -> None:
        """Count the batch under way as done: it is durable, or was reported."""
        if self.batch is not None:
            count = len(self.batch.bodies)
            self.batch = None
            self.done(count)

    def divide(self) -> list[bytes]:
        """Split the batch under way into halves: one of its events was refused, and none appended.

        Returns:
            The refused event, once it is alone and done; empty if there are halves.
        """
        batch, self.batch = self.batch, None
        assert batch is not None
        self.sequence = batch.sequence  # its numbers are free again
        if len(batch.bodies) == 1:
            self.done(1)
            return batch.bodies
        middle = len(batch.bodies) // 2
        self._pieces += [batch.bodies[middle:], batch.bodies[:middle]]
        return []

    def take_all(self) -> list[bytes]:
        """Take out all events that wait or are under way, as done; the caller reports them."""
        bodies: list[bytes] = []
        if self.batch is not None:
            bodies += self.batch.bodies
            self.batch = None
        while self._pieces:
            bodies += self._pieces.pop()
        bodies += self.buffer.take()
        self.buffer.finish(len(bodies) + self._dropped)
        self._dropped = 0
        self.note_done()
        return bodies

    def catch_up(self, reached: int) -> tuple[list[bytes], WakelineError] | None:
        """Compare the events under way with the gateway's; those that have arrived are done.

        Args:
            reached: The attempt's next sequence number, as the gateway returned it.

        Returns:
            Events to report, with the reason; None if the gateway's number is consistent with this publisher.
        """
        batch = self.batch
        first = self.sequence if batch is None else batch.sequence
        if first is None:
            self.sequence = reached
            return None
        arrived = reached - first
        if arrived < 0:
            self.sequence = reached
            return self.take_all(), SequenceGapError(
                f"expected {first} events of this attempt in the session, got {reached}:"
                " the gateway's data were restored from a backup, or the session was created again",
                expected=reached,
            )
        if arrived > (0 if batch is None else len(batch.bodies)):
            bodies = [] if batch is None else batch.bodies
            self.finish()
            self.sequence = reached
            said = f"expected at most the events of this process, got {reached} of its publisher and attempt in the session"
            return bodies, PublisherClashError(said)
        if batch is not None and arrived:
            del batch.bodies[:arrived]
            batch.sequence = reached
            if not batch.bodies:
                self.batch = None
            self.done(arrived)
        return None

    def flushed(self) -> asyncio.Future[None] | None:
        """Return a future that is done when all present events are; None if they are done already."""
        target = self.buffer.taken
        if self.buffer.done >= target:
            return None
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append((target, waiter))
        return waiter

    def dropped(self, count: int) -> None:
        """Count events as dropped from the front of the buffer."""
        self._dropped += count
        self.done(0)

    def done(self, count: int) -> None:
        """Count the oldest events as done."""
        self.buffer.finish(count)
        if self._dropped and self.batch is None and not self._pieces:
            self.buffer.finish(self._dropped)
            self._dropped = 0
        if self._flushes:
            self.note_done()

    def note_done(self) -> None:
        """Wake the flushes whose events are done."""
        while self._flushes and self._flushes[0][0] <= self.buffer.done:
            _, waiter = self._flushes.pop(0)
            if not waiter.done():
                waiter.set_result(None)
