"""Accepts events into the buffer, by the publisher's policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wakeline.buffer import Buffer, WhenFull
from wakeline.errors.publishing import BufferFullError, PublisherError
from wakeline.publisher.errors import PublishDroppedError, PublisherMisusedError, PublishReports
from wakeline.publisher.sender import Sender

if TYPE_CHECKING:
    from wakeline.publisher.topics import Message

_TURN: Final = 64
_MAX_BYTES: Final = 64 * 1024 * 1024


class Intake:
    """Accepts events for one sender.

    Args:
        reports: The reports of undelivered events, each raised before another event is accepted.
        when_full: The policy for an event that finds no room.
        most: The most events that the buffer holds.
        patient: Whether events are accepted while the gateway is away.
        values_wait: Whether each value needs an `await`, because a codec encodes it.
    """

    def __init__(
        self, reports: PublishReports, when_full: WhenFull, *, most: int, patient: bool, values_wait: bool
    ) -> None:
        self.buffer: Buffer[bytes] = Buffer(
            len, max_items=most, max_bytes=_MAX_BYTES, when_full=when_full, always_coalesces=True
        )
        self._reports = reports
        self._most = most
        self._values_wait = values_wait
        self._patient = patient
        self._taken = 0
        self.sender: Sender | None = None
        self.held: set[Message[Any]] = set()
        """Messages that hold back half a character until the next piece."""

    def try_take(self, body: bytes) -> bool:
        """Accept an event if there is room and no report; return False to have `take` decide."""
        sender = self.sender
        if sender is None or self._reports.any or not (self._patient or sender.away is None):
            return False
        if not self.buffer.offer(body):
            return False
        sender.kick()
        return True

    async def take(self, body: bytes, key: tuple[str, str] | None = None) -> None:
        """Accept an event by the policy; wait for room if the policy is to wait.

        Args:
            body: The event.
            key: Its topic and key, under which `coalesce` replaces it.

        Raises:
            PublishDroppedError: Earlier events were not delivered; this one was not accepted.
            BufferFullError: There is no room; this event was not accepted.
        """
        buffer = self.buffer
        while True:
            try:
                sender = self._ready(body)
            except PublisherError:
                buffer.wake()  # otherwise the place that woke this task stays free while other tasks wait
                raise
            dropped = buffer.put(body, key)
            if dropped is not None:
                break
            if buffer.when_full == "error":
                raise BufferFullError(f"expected room for one more event, got none: {len(buffer)} wait to be sent")
            await buffer.room(body)
        if dropped:
            self._reports.add(dropped, "were dropped for later ones")
            sender.note_dropped(len(dropped))
        sender.kick()

    def is_quick(self, coming: int) -> bool:
        """Return whether another thread may hand over an event without waiting for this one.

        Args:
            coming: The number of events that were handed over and are not in the buffer yet.
        """
        return (
            self.sender is not None
            and not self._reports.any
            and not self._values_wait
            and len(self.buffer) + coming < self._most
            and (self._patient or self.sender.away is None)
        )

    def take_anyway(self, body: bytes) -> None:
        """Accept an event that another thread handed over while there was room."""
        if self.sender is None or self._reports.is_ended:
            self._reports.add([body], "were published after the end")
            return
        self.buffer.add(body)
        self.sender.kick()

    def is_turn_over(self) -> bool:
        """Return whether a publisher that never waits must yield, so that its events are sent."""
        self._taken += 1
        if self._taken < _TURN:
            return False
        self._taken = 0
        return True

    def _ready(self, body: bytes) -> Sender:
        if self.sender is None:
            raise PublisherMisusedError(
                "expected an open publisher, got one outside its block: publish inside `async with`"
            )
        self._reports.raise_next()
        if not self._patient and self.sender.away is not None:
            raise PublishDroppedError.because_of(self.sender.away, "1 event could not be delivered", [body])
        return self.sender
