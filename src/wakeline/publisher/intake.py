"""Where events come in: room for one more, or what was chosen for when there is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from wakeline.publisher.buffer import Buffer, WhenFull
from wakeline.publisher.errors import BufferFullError, PublishDroppedError, PublisherError, PublisherMisusedError
from wakeline.publisher.reports import Reports
from wakeline.publisher.sender import Sender

if TYPE_CHECKING:
    from wakeline.publisher.topics import Message

_TURN: Final = 64


class Intake:
    """Takes events for one sender.

    Args:
        buffer: Where they wait.
        reports: What is raised instead of taking one.
        when_full: What to do without room.
        most: How many events the buffer holds.
        patient: Whether events are taken while the gateway is away.
        values_wait: A codec has its say about each value.
    """

    def __init__(
        self, buffer: Buffer, reports: Reports, when_full: WhenFull, *, most: int, patient: bool, values_wait: bool
    ) -> None:
        self._buffer = buffer
        self._reports = reports
        self._when_full = when_full
        self._most = most
        self._values_wait = values_wait
        self._patient = patient
        self._taken = 0
        self.sender: Sender | None = None
        self.held: set[Message[Any]] = set()
        """Messages that hold half a character back until the next piece comes."""

    def try_take(self, body: bytes) -> bool:
        """Take an event if nothing stands against it; else `take` knows what to do."""
        sender, buffer = self.sender, self._buffer
        if sender is None or self._reports.any or not buffer.has_room() or not (self._patient or sender.away is None):
            return False
        buffer.add(body)
        sender.kick()
        return True

    async def take(self, body: bytes, key: tuple[str, str] | None = None) -> None:
        """Take an event; waits for room, if that was chosen.

        Args:
            body: The event.
            key: Its topic and key, where a later event may take its place.

        Raises:
            PublishDroppedError: Earlier events were not delivered; this one was not taken.
            BufferFullError: There is no room; this one was not taken.
        """
        while True:
            try:
                sender = self._ready(body)
            except PublisherError:
                self._buffer.wake()  # its turn goes to the others, for it may have been the last one
                raise
            if self._when_full != "coalesce":
                key = None
            if key is not None and self._buffer.replace(body, key):
                return
            if self._buffer.has_room():
                break
            if self._when_full == "error":
                raise BufferFullError(f"expected room for one more event, {len(self._buffer)} wait to be sent")
            if self._when_full == "drop_oldest":
                dropped = self._buffer.drop_oldest()
                self._reports.add(dropped, "made room for later ones")
                sender.note_dropped(len(dropped))
                break
            await self._buffer.room()
        if key is None:
            self._buffer.add(body)
        else:
            self._buffer.add_keyed(body, key)
        sender.kick()

    def is_quick(self, coming: int) -> bool:
        """Whether another thread may leave an event without asking, with so many others on their way.

        Args:
            coming: Events that were left and not taken in yet.
        """
        return (
            self.sender is not None
            and not self._reports.any
            and not self._values_wait
            and len(self._buffer) + coming < self._most
            and (self._patient or self.sender.away is None)
        )

    def take_anyway(self, body: bytes) -> None:
        """Take an event that was left by another thread while there was room."""
        if self.sender is None or self._reports.is_ended:
            self._reports.add([body], "came when nothing was taken any more")
            return
        self._buffer.add(body)
        self.sender.kick()

    def is_turn_over(self) -> bool:
        """Whether a publisher that never waits has had its turn: what it publishes must get a chance to be sent."""
        self._taken += 1
        if self._taken < _TURN:
            return False
        self._taken = 0
        return True

    def _ready(self, body: bytes) -> Sender:
        if self.sender is None:
            raise PublisherMisusedError(
                "expected an open publisher: enter it by `async with` first, and publish inside"
            )
        self._reports.raise_next()
        if not self._patient and self.sender.away is not None:
            raise PublishDroppedError.because_of(self.sender.away, "1 event could not be delivered", [body])
        return self.sender


async def give_way() -> None:
    """Let everything else run once."""
    await asyncio.sleep(0)
