"""The spool as a detour of one publisher, which also sees to what earlier processes left in the file."""

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
_draining: Final[set[Spool]] = set()  # a forked process has spools of its own


class Spooling:
    """Keeps one publisher's events in a spool while the gateway is away.

    Args:
        spool: The file.
        identity: The publisher.
        connection: The way to the gateway.
        reports: Is told what it refuses of what others left behind.
    """

    needs_sequence = False
    max_batch = 2000

    def __init__(self, spool: Spool, identity: Identity, connection: Connection, reports: PublishReports) -> None:
        self._spool = spool
        self.identity = identity
        self._connection = connection
        self._reports = reports
        self._others: asyncio.Task[None] | None = None
        self._refused: list[PublishDroppedError] = []  # and not told yet

    async def ready(self) -> None:
        """At once: what comes during a write is in the next one."""

    async def take(self, sequence: int | None, bodies: Sequence[bytes]) -> None:
        """Write a batch to the file, see `Detour.take`."""
        await self._spool.do(self._spool.add, self.identity, sequence, list(bodies))

    async def settle(self, opened: int, expected: int | None) -> bool:
        """Send what waits in the file, see `Detour.settle`."""
        if self._others is None:
            self._others = asyncio.create_task(self._drain_others())
        try:
            await drain_source(self._spool, self._connection, self.identity, self._refused)
        except PublishDroppedError as error:
            self._refused.append(error)
        if self._refused:
            told, self._refused = self._refused, []
            bodies = [body for one in told for body in one.bodies]
            raise PublishDroppedError.because_of(told[-1].reason or told[-1], "spooled events were put aside", bodies)
        return True

    async def refused(self, error: WakelineError) -> Sequence[bytes]:
        """Put aside what waits in the file, see `Detour.refused`."""
        return await self._spool.do(self._spool.refuse, self.identity, None, error)

    async def close(self) -> None:
        """Stop seeing to what others left behind."""
        await cancel_all(self._others)

    async def _drain_others(self) -> None:
        turns, backoff = Backoff(), Backoff()
        while self._spool in _draining:  # by another publisher, which may be closed before it is through
            await turns.wait()
        _draining.add(self._spool)
        try:
            while True:
                refused: list[PublishDroppedError] = []
                try:
                    await drain(self._spool, self._connection, refused, but=self.identity)
                    return
                except WakelineError as error:
                    logger.warning("the spool %s waits: %s", self._spool.path, error.message)
                finally:
                    self._tell_of_others(refused)
                await backoff.wait()
        finally:
            _draining.discard(self._spool)

    def _tell_of_others(self, refused: Sequence[PublishDroppedError]) -> None:
        for one in refused:
            # Not as a refusal of this publisher: `except AttemptFencedError` would take it for its own end.
            told = PublishDroppedError(one.message)
            self._reports.add(one.bodies, "that others left in the spool were refused", told)
