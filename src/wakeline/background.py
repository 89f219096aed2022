"""Background tasks: begun, restarted when they fail, waited for and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import suppress
from typing import Any, Final, TypeVar
from weakref import WeakSet

from wakeline.logs import get_logger
from wakeline.retry import Backoff

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_WELL_SECONDS: Final = 10.0
"""Seconds without a failure after which `failing` does not list a task any more."""

logger = get_logger(__name__)


def _log(name: str, seconds: float) -> None:
    logger.exception("The background task %s failed and is restarted in %.1f s", name, seconds)


class _Supervised:
    """One task with its name and its last failure."""

    def __init__(
        self, name: str, work: Callable[[], Coroutine[Any, Any, None]], log: Callable[[str, float], object]
    ) -> None:
        self._log = log
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
                self._trouble = f"{self._name}: {_said(error)}"
                self._unwell_until = self.loop.time() + pause + _WELL_SECONDS
                self._log(self._name, pause)
            await asyncio.sleep(pause)


def _said(error: Exception) -> str:
    """Return an error's message; of an error that is not Wakeline's own, with its kind."""
    if isinstance(error, ExceptionGroup):
        return "; ".join(_said(one) for one in error.exceptions)
    message = getattr(error, "message", None)  # this module imports no errors, which are above it
    return message if isinstance(message, str) else f"{type(error).__name__}: {error}"


_known: WeakSet[_Supervised] = WeakSet()


def supervised(
    name: str, work: Callable[[], Coroutine[Any, Any, None]], *, log: Callable[[str, float], object] = _log
) -> asyncio.Task[None]:
    """Start a task that is restarted when it fails.

    The pause before a restart grows from half a second to half a minute.

    Args:
        name: Its name in the log and in `failing`.
        work: Returns the coroutine that does the work; called again for each restart.
        log: Logs a failure, while its error is handled; called with the name and the pause.

    Returns:
        The task; cancel it to end the work.
    """
    known = _Supervised(name, work, log)
    _known.add(known)
    task = asyncio.create_task(known.run(), name=name)
    task.add_done_callback(lambda _: _known.discard(known))  # a task that has ended is not failing
    return task


def failing() -> list[str]:
    """Return the background tasks of this event loop that failed recently, each with its error."""
    loop = asyncio.get_running_loop()
    return sorted(task.trouble for task in _known if task.loop is loop and task.trouble)


def begin(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Do the work in a task of its own, and return the task.

    It is one of `tasks` until it ends, because asyncio itself does not keep it.
    """
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


class TaskPerKey:
    """Tasks, at most one at a time for each key.

    Attributes:
        running: The tasks by key, until they end or are forgotten.
    """

    def __init__(self) -> None:
        self.running: dict[Hashable, asyncio.Task[Any]] = {}

    def begin(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Return the task of a key; start it if none runs."""

        def done(task: asyncio.Task[Any]) -> None:
            self.forget(key, task)
            _ = task.cancelled() or task.exception()  # retrieve it: the callers may have gone

        task = self.running.get(key)
        if task is None:
            task = self.running[key] = asyncio.create_task(work())
            task.add_done_callback(done)
        return task

    def forget(self, key: Hashable, task: asyncio.Task[Any] | None) -> None:
        """Let another task begin under this key, if this one runs."""
        if self.running.get(key) is task:
            del self.running[key]


async def wait_at_most(seconds: float, work: Awaitable[object]) -> None:
    """Wait until the work is done, for at most so many seconds; it is cancelled then."""
    # Not `wait_for`, which forgets, before Python 3.12, that it was cancelled where the wait is over just then.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work


async def cancel_all(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and wait until each has ended, with or without an error."""
    given = [task for task in tasks if task is not None]
    for task in given:
        task.cancel()
    await asyncio.gather(*given, return_exceptions=True)
