"""The spool as a detour of one publisher.

It also sends the events that other publishers, such as those of earlier processes, have left in the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from wakeline.background import cancel_all
from wakeline.errors import WakelineError
from wakeline.logs import get_logger
from wakeline.publisher.connection import Connection
from wakeline.publisher.drain import drain, drain_source
from wakeline.publisher.errors import PublishDroppedError, PublishReports
from wakeline.publisher.frames import Identity
from wakeline.publisher.spool import Spool
from wakeline.retry import Backoff

logger = get_logger(__name__)
_draining: Final[set[Spool]] = set()  # spools whose other sources are being sent in this process


class Spooling:
    """Keeps one publisher's events in a spool while the gateway is away.

    Args:
        spool: The file.
        identity: The publisher.
        connection: The connection to the gateway.
        reports: Reports the refused events of other publishers.
    """

    needs_sequence = False
    max_batch = 2000

    def __init__(self, spool: Spool, identity: Identity, connection: Connection, reports: PublishReports) -> None:
        self._spool = spool
        self.identity = identity
        self._connection = connection
        self._reports = reports
        self._others: asyncio.Task[None] | None = None
        self._refused: list[PublishDroppedError] = []  # not reported yet

    async def ready(self) -> None:
        """Return at once: events that arrive during a write are in the next one."""

    async def take(self, sequence: int | None, bodies: Sequence[bytes]) -> None:
        """Write a batch to the file, see `Detour.take`."""
        await self._spool.do(self._spool.add, self.identity, sequence, list(bodies))

    async def settle(self, opened: int, expected: int | None) -> bool:
        """Send this publisher's events in the file, see `Detour.settle`."""
        if self._others is None:
            self._others = asyncio.create_task(self._drain_others())
        try:
            await drain_source(self._spool, self._connection, self.identity, self._refused)
        except PublishDroppedError as error:
            self._refused.append(error)
        if self._refused:
            refused, self._refused = self._refused, []
            bodies = [body for one in refused for body in one.bodies]
            last = refused[-1].reason or refused[-1]
            raise PublishDroppedError.because_of(last, "spooled events were put aside", bodies)
        return True

    async def refused(self, error: WakelineError) -> Sequence[bytes]:
        """Put aside this publisher's events in the file, see `Detour.refused`."""
        return await self._spool.do(self._spool.refuse, self.identity, None, error)

    async def close(self) -> None:
        """Stop sending the events of other publishers."""
        await cancel_all(self._others)

    async def _drain_others(self) -> None:
        turns, backoff = Backoff(), Backoff()
        while self._spool in _draining:  # by another publisher, which may be closed before it has finished
            await turns.wait()
        _draining.add(self._spool)
        try:
            while True:
                refused: list[PublishDroppedError] = []
                try:
                    await drain(self._spool, self._connection, refused, but=self.identity)
                    return
                except WakelineError as error:
                    logger.warning("the spool %s is not empty and is retried: %s", self._spool.path, error.message)
                finally:
                    self._report_others(refused)
                await backoff.wait()
        finally:
            _draining.discard(self._spool)

    def _report_others(self, refused: Sequence[PublishDroppedError]) -> None:
        for one in refused:
            # Without the refusal's class: `except AttemptFencedError` would mistake it for this publisher's own end.
            reason = PublishDroppedError(one.message)
            self._reports.add(one.bodies, "that others left in the spool were refused", reason)
