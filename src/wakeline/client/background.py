"""An event loop in a thread of its own, for those who have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from wakeline.threads import call

T = TypeVar("T")


class Background:
    """Runs coroutines for other threads.

    Args:
        at_end: Awaited in the loop when it stops, before what is still running is cancelled.
    """

    def __init__(self, at_end: Callable[[], Awaitable[None]]) -> None:
        self._at_end = at_end
        self._closed = False
        self._process = os.getpid()
        self._submitting = threading.Lock()
        self._started: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()
        # A daemon: a client that was never closed must not keep the program from ending.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="wakeline-client", daemon=True)
        self._thread.start()
        self._loop, self._stop = self._started.get()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Have `work` done, and wait for it; an interrupt of this thread, such as Ctrl-C, cancels it.

        Raises:
            RuntimeError: It is closed, or this is its own thread, or a process that was forked: it does not have the thread.
        """
        try:
            return call(work, self._submit)
        except CancelledError:
            raise RuntimeError("expected an open client, this one was closed in another thread") from None

    def _submit(self, step: Callable[[], None]) -> None:
        if self._process != os.getpid():
            raise RuntimeError("expected a client of this process, this one was made before the process was forked")
        with self._submitting:
            if self._closed or threading.current_thread() is self._thread:
                state = "is closed" if self._closed else "waits for this very callback"
                raise RuntimeError(f"expected an open client and a thread of your own, this client {state}")
            self._loop.call_soon_threadsafe(step)

    def later(self, work: Callable[[], object]) -> None:
        """Have `work` called, without waiting; not at all, if it is closed, or of another process."""
        if self._process != os.getpid():
            return
        with suppress(RuntimeError):  # the loop is closed, and what it had is gone with it
            self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        """Stop, and return when the thread has ended; what is another process's stays as it is."""
        if self._process != os.getpid():
            return
        with self._submitting:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        stop = asyncio.Event()
        self._started.put((asyncio.get_running_loop(), stop))
        await stop.wait()
        await self._at_end()
