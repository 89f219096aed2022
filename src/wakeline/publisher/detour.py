"""Another way for events while the gateway is away. What goes by it keeps its identity, so that nothing is doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from wakeline.background import cancel_all
from wakeline.errors import UnavailableError, WakelineError
from wakeline.logs import get_logger
from wakeline.publisher.errors import ENDS, PublishDroppedError, PublishReports
from wakeline.publisher.frames import Identity
from wakeline.publisher.outbox import Batch, Outbox
from wakeline.retry import Backoff

logger = get_logger(__name__)

_LAST_SECONDS: Final = 5.0


class Detour(Protocol):
    """A place that takes events in the gateway's stead: the spool, or the workflow's own stream."""

    identity: Identity
    """Who publishes; with the session's epoch once the gateway has said it."""
    needs_sequence: bool
    """Events must be numbered when they are taken; without, the gateway's answer may come later."""
    max_batch: int
    """Events that it takes at once."""

    async def ready(self) -> None:
        """Wait until it can take a batch, so that what comes meanwhile is in it."""

    async def take(self, sequence: int | None, bodies: Sequence[bytes]) -> None:
        """Take a batch; return when it is durable there.

        Args:
            sequence: Of its first event; None if the gateway has not said where this attempt stands.
            bodies: The events.

        Raises:
            WakelineError: It cannot be taken.
        """

    async def settle(self, opened: int, expected: int | None) -> bool:
        """The gateway is there again: do what is to be done before events may go to it.

        Args:
            opened: Where the attempt stands, as the gateway says.
            expected: Where it stands when all that was taken has arrived; None if nobody knows, or something was not taken.

        Returns:
            Whether they may.

        Raises:
            UnavailableError: It is away again.
            PublishDroppedError: It refused what was taken.
        """
        ...

    async def refused(self, error: WakelineError) -> Sequence[bytes]:
        """The gateway will take nothing of this attempt any more; returns what was taken here and is now for nothing."""
        ...

    async def close(self) -> None:
        """Be done."""


class OnDetour:
    """One trip: from the moment that the gateway is away until it has everything.

    Args:
        detour: The way.
        outbox: What goes by it.
        reports: Is told of what it does not take.
        reopen: Asks the gateway where the attempt stands; `opened` is the answer.
        end: The gateway will take nothing any more; `ended` is the answer.
        report_end: Tells so, with what had gone by this way.
        over: The trip is.
        stuck: What waits can only go on when the gateway is back.
    """

    def __init__(
        self,
        detour: Detour,
        outbox: Outbox,
        reports: PublishReports,
        *,
        reopen: Callable[[], None],
        end: Callable[[WakelineError], None],
        report_end: Callable[[WakelineError, Sequence[bytes]], None],
        over: Callable[[], None],
        stuck: Callable[[], None],
    ) -> None:
        self._detour = detour
        self._outbox = outbox
        self._reports = reports
        self._reopen = reopen
        self._end = end
        self._report_end = report_end
        self._over = over
        self._stuck = stuck
        self._wake = asyncio.Event()
        self._reached: int | None = None
        self._ended: WakelineError | None = None
        self._backoff = Backoff()
        self._failed = False  # something was not taken: where the attempt will stand is not known
        self._task = asyncio.create_task(self._run())

    @property
    def is_stuck(self) -> bool:
        """Whether later events wait for the gateway: something was not taken, or may have been, and they need numbers."""
        return self._failed and self._detour.needs_sequence

    def kick(self) -> None:
        """Something was put into the buffer."""
        self._wake.set()

    def opened(self, reached: int) -> None:
        """The gateway is there, and has so many events of the attempt."""
        self._reached = reached
        self._wake.set()

    def lost(self) -> None:
        """It is away again."""
        self._reached = None

    def ended(self, error: WakelineError) -> None:
        """It will take nothing any more."""
        self._ended = error
        self._wake.set()

    async def close(self) -> None:
        """Stop, wherever it is."""
        self._over = lambda: None
        if self._ended is not None:
            await asyncio.wait([self._task], timeout=_LAST_SECONDS)  # what it took is to be told of
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
            self._over()

    async def _finish(self, ended: WakelineError) -> None:
        left: Sequence[bytes] = ()
        try:
            left = await self._detour.refused(ended)
        except WakelineError as error:
            logger.warning("%s", error.message)
        finally:
            self._report_end(ended, left)

    async def _divert(self, batch: Batch) -> None:
        try:
            await self._detour.take(batch.sequence, batch.bodies)
        except Exception as error:  # noqa: BLE001  whatever went wrong, the events are told of
            reason = error if isinstance(error, WakelineError) else UnavailableError(repr(error))
            if self._outbox.batch is batch:
                self._failed = True
                self._outbox.sequence = None
                self._reports.add(batch.bodies, "could not be kept elsewhere either", reason)
        if self._outbox.batch is batch:  # else it was told of meanwhile
            self._outbox.finish()
        if self.is_stuck:
            self._stuck()

    async def _settle(self, reached: int) -> bool:
        """Whether the gateway has everything, so that the trip is over."""
        outbox = self._outbox
        try:
            settled = await self._detour.settle(reached, None if self._failed else outbox.sequence)
        except PublishDroppedError as error:
            self._reports.add(error.bodies, "were refused", error.reason)
            if isinstance(error, ENDS):
                self._end(error.reason or error)
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
                outbox.sequence = None  # the gateway is asked
            elif outbox.sequence is not None:
                outbox.sequence = max(outbox.sequence, reached)
            return True
        self._reached = None
        self._reopen()
        return False
