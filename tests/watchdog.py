"""Fails a test in which the gateway held the event loop: everybody else of that gateway stood still meanwhile.

What counts is the CPU time of the loop's thread within one callback, so that a machine that is busy with something else is
not blamed, and without the garbage collector's. The test's own tasks, and the clients, workers and model libraries that share
the loop with the gateway, are passed over: a sample of the stack must be in the gateway.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Final

MOST_SECONDS: Final = 0.1
_READ_EVERY: Final = 0.005

_TESTS: Final = str(Path(__file__).parent)
_PYTEST: Final = ("pytest", "pluggy", "asyncio/runners")
_GATEWAY: Final = ("/wakeline/gateway/", "/wakeline/compact/", "/aiohttp/web_")


class Watchdog:
    """Measures each callback of the event loop of this thread."""

    def __init__(self) -> None:
        self.stalls: list[str] = []
        self._thread = threading.get_ident()
        self._collecting = self._collected = 0.0
        # When the thread's CPU clock was last read, and what it showed. Each reading is a call into the kernel.
        self._read = self._cpu = 0.0
        self._began: float | None = None
        self._stack = ""
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        run = asyncio.Handle._run
        watchdog = self

        def measured(handle: asyncio.Handle) -> None:
            if threading.get_ident() != watchdog._thread:
                return run(handle)
            began, collected = perf_counter(), watchdog._collected
            if began - watchdog._read > _READ_EVERY:
                watchdog._read, watchdog._cpu = began, thread_time()
            watchdog._stack, watchdog._began = "", began
            try:
                return run(handle)
            finally:
                watchdog._began = None
                if perf_counter() - began > MOST_SECONDS:
                    watchdog._judge(handle, began, collected)

        sampler = threading.Thread(target=self._sample, daemon=True)
        sampler.start()
        gc.callbacks.append(self._note_collection)
        asyncio.Handle._run = measured  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            asyncio.Handle._run = run  # type: ignore[method-assign]
            gc.callbacks.remove(self._note_collection)
            self._over.set()
            sampler.join()

    def _judge(self, handle: asyncio.Handle, began: float, collected: float) -> None:
        """Note a callback that took long, if the gateway spent that time on the CPU."""
        before = began - self._read  # at most so much of the CPU time since the reading is of earlier callbacks
        seconds = thread_time() - self._cpu - before - (self._collected - collected)
        who = _named(handle)
        if seconds > MOST_SECONDS and who is not None and _is_the_gateway_s(handle, self._stack):
            self.stalls.append(f"{seconds:.3f} s of CPU in {who}\n{self._stack}")

    def _note_collection(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collecting = thread_time()
        else:
            self._collected += thread_time() - self._collecting

    def _sample(self) -> None:
        """Note where a callback is that takes long."""
        while not self._over.wait(MOST_SECONDS / 2):
            began = self._began
            if began is not None and not self._stack and perf_counter() - began > MOST_SECONDS * 0.75:
                self._stack = _stack_of(self._thread)


def _stack_of(thread: int) -> str:
    """Where a thread is, its latest call first.

    It runs on meanwhile: read by Python, one frame after the other, its frames may be gone or another's.
    """
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        parts = file.read().split("\n\n")
    return next((part for part in parts if part.startswith(f"Thread 0x{thread:016x} ")), "")


def _is_the_gateway_s(handle: asyncio.Handle, stack: str) -> bool:
    """Whether a gateway that runs as a service would have stood still here.

    Where no sample could be taken, a task's coroutine decides, and a callback without a task counts. An exception that is
    drawn for a terminal does not count: a service writes JSON.
    """
    if any(f"/{library}/" in stack for library in ("rich", "structlog")):
        return False
    place = stack or _file_of(handle)
    return place is None or any(part in place for part in _GATEWAY)


def _named(handle: asyncio.Handle) -> str | None:
    """What a callback is of; None for the test's own."""
    file = _file_of(handle) or ""
    if file.startswith(_TESTS) or any(part in file for part in _PYTEST):
        return None
    return repr(handle)


def _file_of(handle: asyncio.Handle) -> str | None:
    """The file of the coroutine that a callback steps; None for a callback of no task."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return None
    coroutine: Any = task.get_coro()
    return getattr(getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None), "co_filename", "")


@contextmanager
def loop_is_never_held() -> Iterator[None]:
    """Fail if a callback takes longer than it may while the block lasts."""
    watchdog = Watchdog()
    with watchdog.watching():
        yield
    assert not watchdog.stalls, "the event loop was held for " + "\n".join(watchdog.stalls)
