"""Another way for events while the gateway is away.

Events keep their identity and sequence numbers on it, so that the gateway recognises duplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from wakeline.background import cancel_all
from wakeline.errors import UnavailableError, WakelineError
from wakeline.logs import get_logger
from wakeline.publisher.errors import ENDS, PublishDroppedError, PublishReports
from wakeline.publisher.frames import Identity
from wakeline.publisher.outbox import Batch, Outbox
from wakeline.retry import Backoff

if TYPE_CHECKING:
    from wakeline.publisher.sender import Sender

logger = get_logger(__name__)

_LAST_SECONDS: Final = 5.0


class Detour(Protocol):
    """A place that accepts events for the gateway: the spool, or the workflow's own stream."""

    identity: Identity
    """The publisher; with the session's epoch once the gateway has returned it."""
    needs_sequence: bool
    """Whether events must have sequence numbers when they are accepted, and not only when they are settled."""
    max_batch: int
    """The most events of one batch."""

    async def ready(self) -> None:
        """Wait until it can accept a batch, so that later events are in that batch too."""

    async def take(self, sequence: int | None, bodies: Sequence[bytes]) -> None:
        """Accept a batch; return when it is durable there.

        Args:
            sequence: The sequence number of its first event; None if the gateway has not returned the attempt's next one.
            bodies: The events.

        Raises:
            WakelineError: The batch was not accepted.
        """

    async def settle(self, opened: int, expected: int | None) -> bool:
        """Bring accepted events into the session, now that the gateway is back.

        Args:
            opened: The attempt's next sequence number, as the gateway returned it.
            expected: The next sequence number once all accepted events have arrived; None if it is unknown, or if a batch
                was not accepted.

        Returns:
            Whether all have arrived, so that later events may go to the gateway.

        Raises:
            UnavailableError: The gateway is away again.
            PublishDroppedError: The gateway refused accepted events.
        """
        ...

    async def refused(self, error: WakelineError) -> Sequence[bytes]:
        """Return the accepted events that can no longer arrive: the gateway has ended this attempt."""
        ...

    async def close(self) -> None:
        """Release its resources."""


class OnDetour:
    """One use of a detour: from the gateway's failure until the gateway has every event.

    Its task owns the outbox during that time. The sender forwards the gateway's answers to it.

    Args:
        detour: The detour.
        outbox: The events to send.
        reports: Reports the events that the detour does not accept.
        sender: The sender.
    """

    def __init__(self, detour: Detour, outbox: Outbox, reports: PublishReports, sender: Sender) -> None:
        self._detour = detour
        self._outbox = outbox
        self._reports = reports
        self._sender = sender
        self._wake = asyncio.Event()
        self._reached: int | None = None
        self._ended: WakelineError | None = None
        self._backoff = Backoff()
        # A batch was not accepted, or only in part: the attempt's next sequence number is unknown.
        self._failed = False
        self._is_closing = False
        self._task = asyncio.create_task(self._run())

    @property
    def is_stuck(self) -> bool:
        """Whether later events need the gateway: their numbers are unknown after a failed batch."""
        return self._failed and self._detour.needs_sequence

    def kick(self) -> None:
        """Continue: the buffer has another event."""
        self._wake.set()

    def opened(self, reached: int) -> None:
        """Continue with the gateway, which has this many events of the attempt."""
        self._reached = reached
        self._wake.set()

    def lost(self) -> None:
        """Continue without the gateway: it is away again."""
        self._reached = None

    def ended(self, error: WakelineError) -> None:
        """Finish: the gateway accepts no more events of this attempt."""
        self._ended = error
        self._wake.set()

    async def close(self) -> None:
        """Stop at once; if the attempt has ended, report first, for at most 5 s."""
        self._is_closing = True
        if self._ended is not None:
            await asyncio.wait([self._task], timeout=_LAST_SECONDS)  # to report its events
        await cancel_all(self._task)

    async def _run(self) -> None:
        try:
            while self._ended is None:
                self._wake.clear()
                if self._outbox.batch is not None:
                    await self._divert(self._outbox.batch)
                elif self._outbox.has_more() and not self.is_stuck:
                    await self._detour.ready()
                    if self._outbox.has_more():
                        self._outbox.cut(self._detour.max_batch)
                elif self._reached is not None:
                    if await self._settle(self._reached):
                        return
                else:
                    await self._wake.wait()
            await self._finish(self._ended)
        finally:
            if not self._is_closing:
                self._sender.detour_over()

    async def _finish(self, ended: WakelineError) -> None:
        left: Sequence[bytes] = ()
        try:
            left = await self._detour.refused(ended)
        except WakelineError as error:
            logger.warning("%s", error.message)
        finally:
            self._sender.report_end(ended, left)

    async def _divert(self, batch: Batch) -> None:
        try:
            await self._detour.take(batch.sequence, batch.bodies)
        except Exception as error:  # noqa: BLE001  after any error the events must be reported
            reason = error if isinstance(error, WakelineError) else UnavailableError(repr(error))
            if self._outbox.batch is batch:
                self._failed = True
                self._outbox.sequence = None
                self._reports.add(batch.bodies, "could not be stored elsewhere either", reason)
        if self._outbox.batch is batch:  # else the sender has reported it meanwhile
            self._outbox.finish()
        if self.is_stuck:
            self._sender.arm()

    async def _settle(self, reached: int) -> bool:
        """Return whether the gateway has every event, so that the detour is over."""
        outbox = self._outbox
        try:
            settled = await self._detour.settle(reached, None if self._failed else outbox.sequence)
        except PublishDroppedError as error:
            self._reports.add(error.bodies, "were refused", error.reason)
            if isinstance(error, ENDS):
                self._sender.end(error.reason or error)
                return False
            outbox.sequence = None
            return self._reached is not None
        except WakelineError as error:
            logger.warning("%s", error.message)
            await self._backoff.wait()
            settled = False
        if self._reached is None:
            return False  # it is away again
        if settled:
            if self._failed:
                outbox.sequence = None  # the gateway returns it
            elif outbox.sequence is not None:
                outbox.sequence = max(outbox.sequence, reached)
            return True
        self._reached = None
        self._sender.ask()
        return False
