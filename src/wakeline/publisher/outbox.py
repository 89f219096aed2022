"""What one publisher has to send, each event under its own sequence number, and who waits for it."""

from __future__ import annotations

import asyncio

from wakeline.buffer import Buffer
from wakeline.errors import SequenceGapError, WakelineError
from wakeline.publisher.errors import PublisherClashError
from wakeline.publisher.frames import MAX_BATCH_BYTES


class Batch:
    """Events under way: the first one's sequence number, if it is known, and their JSON."""

    __slots__ = ("bodies", "sequence")

    def __init__(self, sequence: int | None, bodies: list[bytes]) -> None:
        self.sequence = sequence
        self.bodies = bodies


class Outbox:
    """The buffer, the batch under way, and the numbers.

    Args:
        buffer: What waits.
    """

    def __init__(self, buffer: Buffer[bytes]) -> None:
        self.buffer = buffer
        self.sequence: int | None = None
        """Of the next event that is cut into a batch; None until the gateway has said where the attempt stands."""
        self.batch: Batch | None = None
        """What is under way."""
        self._pieces: list[list[bytes]] = []  # of a batch that was refused as a whole, the first one last
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self._dropped = 0  # places that are done as soon as what is under way before them is

    def has_something(self) -> bool:
        """Whether anything waits or is under way."""
        return self.batch is not None or self.has_more()

    def has_more(self) -> bool:
        """Whether anything waits."""
        return bool(self._pieces) or len(self.buffer) > 0

    def may_wait(self, most: int) -> bool:
        """Whether what waits could become more: it is no full batch, and nobody wants it flushed."""
        return not self._pieces and len(self.buffer) < most and not self._flushes

    def cut(self, most: int) -> Batch:
        """Take the next events under way."""
        bodies = (
            self._pieces.pop() if self._pieces else self.buffer.take(most, MAX_BATCH_BYTES - most)
        )  # there is a comma after each
        self.batch = Batch(self.sequence, bodies)
        if self.sequence is not None:
            self.sequence += len(bodies)
        return self.batch

    def finish(self) -> None:
        """What is under way is durable, or told of."""
        if self.batch is not None:
            count = len(self.batch.bodies)
            self.batch = None
            self.done(count)

    def divide(self) -> list[bytes]:
        """Nothing under way was appended, since one event of it was refused: try the halves, or give up the one it is.

        Returns:
            The one event, where it is alone.
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
        """All that waits and is under way, for good: somebody is told of it."""
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
        """Compare what was sent with what has arrived; what has arrived is done.

        Args:
            reached: Where the attempt stands, as the gateway says.

        Returns:
            Events that are to be told of, and why; None if all is well.
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
                f"expected {first} events of this attempt in the session, it has {reached}:"
                " the gateway's data were restored from a backup, or the session was created again",
                expected=reached,
            )
        if arrived > (0 if batch is None else len(batch.bodies)):
            bodies = [] if batch is None else batch.bodies
            self.finish()
            self.sequence = reached
            said = f"the session has {reached} events of this publisher and attempt, more than were sent here"
            return bodies, PublisherClashError(said)
        if batch is not None and arrived:
            del batch.bodies[:arrived]
            batch.sequence = reached
            if not batch.bodies:
                self.batch = None
            self.done(arrived)
        return None

    def flushed(self) -> asyncio.Future[None] | None:
        """A future that is done when everything that is here now is; None if it is."""
        target = self.buffer.taken
        if self.buffer.done >= target:
            return None
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append((target, waiter))
        return waiter

    def dropped(self, count: int) -> None:
        """So many events at the front of the buffer are not to be sent."""
        self._dropped += count
        self.done(0)

    def done(self, count: int) -> None:
        """So many events at the front are."""
        self.buffer.finish(count)
        if self._dropped and self.batch is None and not self._pieces:
            self.buffer.finish(self._dropped)
            self._dropped = 0
        if self._flushes:
            self.note_done()

    def note_done(self) -> None:
        """Tell those who wait for a flush."""
        while self._flushes and self._flushes[0][0] <= self.buffer.done:
            _, waiter = self._flushes.pop(0)
            if not waiter.done():
                waiter.set_result(None)
