"""A worker that stops lets the gateway read first what workflows that have just ended said last.

Only a worker can be asked for that, and Temporal gives a workflow's result to who waits for it before anybody can ask. So a
program that stops its worker when it has the result would take the last events with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from temporalio.worker import Worker

from wakeline.publisher import Nudger
from wakeline.streams.exit import end_in_order

_MOST: Final = 1_000
_LATELY_SECONDS: Final = 10.0
# Some hundredths where there is something to read; more where the run must be found first, or the machine is busy.
_PATIENCE_SECONDS: Final = 3.0


class Leaving:
    """Delays the end of one worker.

    Args:
        nudger: Asks the gateway.
    """

    def __init__(self, nudger: Nudger) -> None:
        self._nudger = nudger
        self._ended: deque[tuple[float, str]] = deque(maxlen=_MOST)
        self._stopping: set[asyncio.Task[None]] = set()

    def note(self, workflow_id: str) -> None:
        """A workflow of the worker takes its last step; may be called from any thread."""
        self._ended.append((time.monotonic(), workflow_id))

    def delay(self, worker: Worker) -> None:
        """Have `shutdown` of a worker, by which `async with` ends it too, wait first, for some seconds at most."""
        stop = worker.shutdown
        end_in_order()

        async def shutdown() -> None:
            try:
                await self._last_words()
            except asyncio.CancelledError:
                # As without us: who gives up waiting has asked for the end all the same.
                stopping = asyncio.create_task(stop())
                self._stopping.add(stopping)
                stopping.add_done_callback(self._stopping.discard)
                raise
            await stop()

        worker.shutdown = shutdown  # type: ignore[method-assign] # plugins are not told when a worker is to stop

    async def _last_words(self) -> None:
        since = time.monotonic() - _LATELY_SECONDS
        ended = {workflow_id for at, workflow_id in list(self._ended) if at >= since}
        self._ended.clear()
        if ended:
            await self._nudger.until_ended(ended, _PATIENCE_SECONDS)
