"""How a thread without an event loop has something done in one, and waits for it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")
Submit: TypeAlias = Callable[[Callable[[], None]], object]

# A thread that waits is looked after so often, in seconds: only then can the cancellation of an activity reach it.
_ATTENTION: Final = 0.5


def call(work: Coroutine[Any, Any, T], submit: Submit) -> T:
    """Have `work` done in the loop of another thread, and wait for it; what it raises is raised here.

    An exception that comes up in this thread while it waits, as of Ctrl-C or of the cancellation of a `def` activity, is
    raised as it is, and cancels the work.

    Args:
        work: What to do.
        submit: Has a function called in the loop, as `call_soon_threadsafe` of the loop does. Raises `RuntimeError` if it
            cannot, and then what is being done there already is cancelled without being asked.

    Raises:
        concurrent.futures.CancelledError: The work was cancelled in the loop.
        RuntimeError: From `submit`.
    """
    # Such an exception may come up between any two steps of this thread. It would leave the locks of a `Future` held for
    # ever, or turn into another one; a `SimpleQueue` waits in one step.
    ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
    task: asyncio.Task[T] | None = None

    def begin() -> None:
        nonlocal task
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(tell)

    def tell(task: asyncio.Task[T]) -> None:
        # Asked for its error, it does not complain that nobody did: who waited may have gone.
        _ = task.cancelled() or task.exception()
        ended.put(task)

    def give_up() -> None:
        if task is None:
            work.close()
        else:
            task.cancel()

    try:
        submit(begin)
        done = _wait(ended)
    except BaseException:
        try:
            submit(give_up)
        except RuntimeError:
            if task is None:
                work.close()
        raise
    if done.cancelled():
        raise CancelledError("expected the work to be done, it was cancelled in its own thread")
    return done.result()


def _wait(ended: SimpleQueue[asyncio.Task[T]]) -> asyncio.Task[T]:
    while True:
        try:
            return ended.get(timeout=_ATTENTION)
        except Empty:
            continue


class LoopThread:
    """An event loop in a thread of its own, which is started when it is first wanted and ends with the process.

    Args:
        name: The thread's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self._is_known = False

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        if self._loop is not None:
            return self._loop
        with self._starting:
            if not self._is_known and hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._forget)
                self._is_known = True
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name=self._name, daemon=True).start()
                self._loop = loop
            return self._loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Have `work` done, and wait for it; see `call`.

        Raises:
            RuntimeError: This is the thread itself.
        """
        if threading.current_thread().name == self._name:
            work.close()
            raise RuntimeError(f"expected a thread of your own, this is {self._name}, which would wait for itself")
        return call(work, self.loop().call_soon_threadsafe)

    def _forget(self) -> None:
        """A forked process has the loop and not its thread: who waited for it would wait for ever."""
        self._loop, self._starting = None, threading.Lock()
