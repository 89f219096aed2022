"""Background tasks that go on whatever happens: one that fails is logged, reported by `/readyz`, and restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final
from weakref import WeakSet

import structlog

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_WELL_SECONDS: Final = 10.0
"""A task that has run for so long since its last failure counts as well again."""

_log = structlog.get_logger(__name__)


class _Supervised:
    """One task: its name, and how it is."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self.loop = asyncio.get_running_loop()
        self._trouble = ""
        self._unwell_until = 0.0

    @property
    def trouble(self) -> str:
        """What it failed of; empty where it is well."""
        return self._trouble if self.loop.time() < self._unwell_until else ""

    async def run(self) -> None:
        """Do the work, again and again if it fails. Only cancellation, or its own return, ends it."""
        failures = 0
        while True:
            began = self.loop.time()
            try:
                await self._work()
                return
            except Exception as error:  # noqa: BLE001 - an unexpected error must not end what nobody else would start again
                failures = 1 if self.loop.time() - began > _WELL_SECONDS else failures + 1
                pause = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE)
                self._trouble = f"{self._name}: {error!r}"
                self._unwell_until = self.loop.time() + pause + _WELL_SECONDS
                _log.exception("a background task failed and is restarted", task=self._name, seconds=pause)
            await asyncio.sleep(pause)


_known: WeakSet[_Supervised] = WeakSet()


def supervised(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Start a task that is restarted when it fails, after a pause that grows from half a second to half a minute.

    Args:
        name: What `/readyz` and the log call it.
        work: Begins the work; called again for each restart.
    """
    supervised = _Supervised(name, work)
    _known.add(supervised)
    task = asyncio.create_task(supervised.run(), name=name)
    task.add_done_callback(lambda _: _known.discard(supervised))  # one that was ended is nobody's trouble
    return task


def failing() -> list[str]:
    """The background tasks of this event loop that have failed lately, each with its error."""
    loop = asyncio.get_running_loop()
    return sorted(task.trouble for task in _known if task.loop is loop and task.trouble)
