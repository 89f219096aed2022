"""Background tasks that are restarted when they fail; `/readyz` reports those that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final
from weakref import WeakSet

import structlog

from wakeline.retry import Backoff

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_WELL_SECONDS: Final = 10.0
"""`/readyz` reports a failed task until it has run for this long again."""

_log = structlog.get_logger(__name__)


class _Supervised:
    """One task with its name and its last failure."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self.loop = asyncio.get_running_loop()
        self._trouble = ""
        self._unwell_until = 0.0

    @property
    def trouble(self) -> str:
        """The error of its last failure; empty once the task has recovered."""
        return self._trouble if self.loop.time() < self._unwell_until else ""

    async def run(self) -> None:
        """Run the work and restart it after each failure, until it returns or is cancelled."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            began = self.loop.time()
            try:
                await self._work()
                return
            except Exception as error:  # noqa: BLE001 - no other code would restart the task
                if self.loop.time() - began > _WELL_SECONDS:
                    backoff.reset()
                pause = backoff.pause()
                self._trouble = f"{self._name}: {error!r}"
                self._unwell_until = self.loop.time() + pause + _WELL_SECONDS
                _log.exception("a background task failed and is restarted", task=self._name, seconds=pause)
            await asyncio.sleep(pause)


_known: WeakSet[_Supervised] = WeakSet()


def supervised(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Start a task that is restarted when it fails.

    The pause before a restart grows from half a second to half a minute.

    Args:
        name: Its name in `/readyz` and in the log.
        work: Returns the coroutine that does the work; called again for each restart.

    Returns:
        The task; cancel it to end the work.
    """
    known = _Supervised(name, work)
    _known.add(known)
    task = asyncio.create_task(known.run(), name=name)
    task.add_done_callback(lambda _: _known.discard(known))  # a task that has ended is not failing
    return task


def failing() -> list[str]:
    """Return the background tasks of this event loop that failed recently, each with its error."""
    loop = asyncio.get_running_loop()
    return sorted(task.trouble for task in _known if task.loop is loop and task.trouble)
