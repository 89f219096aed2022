"""Delays the end of a worker until the gateway has read its workflows' last events.

Only a worker can answer queries for them, and Temporal returns a workflow's result before the gateway can query. A
program that stops its worker when it has the result would therefore often stop it before the last events are read.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from temporalio.worker import Worker

from wakeline.background import begin
from wakeline.publisher import Nudger

_MOST: Final = 1_000
_LATELY_SECONDS: Final = 10.0
# The wait usually takes some hundredths; more if the gateway must find the run first, or the machine is busy.
_PATIENCE_SECONDS: Final = 3.0


class Leaving:
    """Delays the end of one worker.

    Args:
        nudger: The connection to the gateway.
    """

    def __init__(self, nudger: Nudger) -> None:
        self._nudger = nudger
        self._ended: deque[tuple[float, str]] = deque(maxlen=_MOST)
        self._stopping: set[asyncio.Task[None]] = set()

    def note(self, workflow_id: str) -> None:
        """Record that a workflow of the worker takes its last step; callable from any thread."""
        self._ended.append((time.monotonic(), workflow_id))

    def delay(self, worker: Worker) -> None:
        """Make a worker's `shutdown`, which `async with` also calls, wait for some seconds first."""
        stop = worker.shutdown

        async def shutdown() -> None:
            try:
                await self._last_words()
            except asyncio.CancelledError:
                # A caller that abandons the wait has still requested the worker's end.
                begin(stop(), self._stopping)
                raise
            await stop()

        worker.shutdown = shutdown  # type: ignore[method-assign] # plugins have no hook for a worker's stop

    async def _last_words(self) -> None:
        since = time.monotonic() - _LATELY_SECONDS
        ended = {workflow_id for at, workflow_id in list(self._ended) if at >= since}
        self._ended.clear()
        if ended:
            await self._nudger.until_ended(ended, _PATIENCE_SECONDS)
