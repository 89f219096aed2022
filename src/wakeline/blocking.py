"""Synchronous calls into an event loop, and the threads that run one for them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import nullcontext, suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")
Submit: TypeAlias = Callable[[Callable[[], None]], object]

# A waiting thread wakes this often, in seconds: the cancellation of an activity reaches it only then.
_ATTENTION: Final = 0.5


def call(work: Coroutine[Any, Any, T], submit: Submit) -> T:
    """Run `work` in the event loop of another thread and return its result, or raise its error.

    An exception that is raised in this thread while it waits, such as by Ctrl-C or by the cancellation of a `def`
    activity, passes through unchanged and cancels the work.

    Args:
        work: The work.
        submit: Calls a function in the loop, as its `call_soon_threadsafe` does. It raises `RuntimeError` if the loop
            ends; the owner of the loop then cancels the work.

    Raises:
        concurrent.futures.CancelledError: The work was cancelled in the loop.
        RuntimeError: From `submit`.
    """
    # Such an exception may be raised between any two steps of this thread. It would leave the locks of a `Future` held
    # for ever, or turn into another exception; a `SimpleQueue` waits in one step.
    ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
    task: asyncio.Task[T] | None = None

    def begin() -> None:
        nonlocal task
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(end)

    def end(task: asyncio.Task[T]) -> None:
        # Retrieve the error, or asyncio logs it when the caller has gone.
        _ = task.cancelled() or task.exception()
        ended.put(task)

    def cancel() -> None:
        if task is None:
            work.close()
        else:
            task.cancel()

    try:
        submit(begin)
        done = _wait(ended)
    except BaseException:
        try:
            submit(cancel)
        except RuntimeError:
            if task is None:
                work.close()
        raise
    if done.cancelled():
        raise CancelledError("expected a result, got a cancellation in the thread of the event loop")
    return done.result()


def _wait(ended: SimpleQueue[asyncio.Task[T]]) -> asyncio.Task[T]:
    while True:
        try:
            return ended.get(timeout=_ATTENTION)
        except Empty:
            continue


class LoopThread:
    """A daemon thread with an event loop, started at the first call.

    Args:
        name: The name of the thread.
        at_end: Awaited in the loop by `close`, before `close` cancels what still runs. A thread with it belongs to the
            process that made it. Without it, the thread ends with the process, and a forked process starts its own.
    """

    def __init__(self, name: str, at_end: Callable[[], Awaitable[None]] | None = None) -> None:
        self._name = name
        self._at_end = at_end
        self._process = os.getpid()
        self._is_closed = False
        # Without this lock, a call that is submitted while the loop ends would never begin. Threads that never close
        # go without: an exception that interrupts a caller could leave the lock held.
        self._submitting = nullcontext() if at_end is None else threading.Lock()
        self._renew()
        if at_end is None and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        """Forget the loop: a forked process does not have the thread that runs it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop; the first call starts the thread."""
        if self._loop is not None:
            return self._loop
        with self._starting:
            if self._loop is None:
                loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
                self._thread = threading.Thread(target=self._run, args=(loop, self._stop), name=self._name, daemon=True)
                self._thread.start()
                self._loop = loop
            return self._loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop and return its result; see `call`.

        Raises:
            RuntimeError: The thread is closed, belongs to another process, or is the calling thread itself.
        """
        try:
            return call(work, self._submit)
        except CancelledError:
            if self._is_closed:
                raise RuntimeError("expected an open client, got one that another thread has closed") from None
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yield the items of a generator, one request at a time, and close it at the end."""
        # A cancelled step must end before the generator can be closed.
        turn = asyncio.Lock()

        async def fetch() -> T | None:
            async with turn:
                return await anext(items, None)

        async def close() -> None:
            async with turn:
                await items.aclose()

        try:
            while (item := self.call(fetch())) is not None:
                yield item
        finally:
            # Not awaited: the garbage collector closes a loop that was left early, in any thread.
            self.later(lambda: asyncio.ensure_future(close()))

    def later(self, work: Callable[[], object]) -> None:
        """Call `work` in the loop without waiting, unless the thread is closed."""
        if self._loop is not None and self._is_here():
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        """Stop and join the thread; harmless when repeated, and in a forked process."""
        if not self._is_here():
            return
        with self._submitting:
            if not self._is_closed and self._loop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
            self._is_closed = True
        if self._thread is not None:
            self._thread.join()

    def _is_here(self) -> bool:
        return self._at_end is None or self._process == os.getpid()

    def _submit(self, step: Callable[[], None]) -> None:
        if not self._is_here():
            raise RuntimeError(
                "expected a client of this process, got one that was made before the process was forked: make another one"
            )
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                f"expected a call from another thread, got one from {self._name}, which would wait for itself"
            )
        with self._submitting:
            if self._is_closed:
                raise RuntimeError("expected an open client, got a closed one: make another one")
            self.loop().call_soon_threadsafe(step)

    def _run(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        async def main() -> None:
            await stop.wait()
            if self._at_end is not None:
                await self._at_end()

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())
