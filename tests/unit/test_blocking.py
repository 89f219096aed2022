"""A thread that waits for another may be interrupted between any two of its steps, by Ctrl-C or by Temporal."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from types import FrameType
from typing import Any

import pytest

from wakeline.blocking import LoopThread

STEPS = 400


class Interrupting:
    """Raises `KeyboardInterrupt` before the n-th line of what the block does, here and in the standard library's waiting.

    Attributes:
        raised: It came to that.
    """

    def __init__(self, at: int) -> None:
        self._left = at
        self._hook = self._trace  # Python's tracing does not keep it
        self.raised = False

    def __enter__(self) -> None:
        gc.disable()  # what it would call is no part of the block
        sys.settrace(self._hook)

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)
        gc.enable()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(("blocking.py", "threading.py", "_base.py", "base_events.py")):
            return None
        if event == "line":
            if self._left == 0:
                self.raised = True
                raise KeyboardInterrupt
            self._left -= 1
        return self._hook


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("interrupted")
    yield thread
    thread.close()


async def answer(begun: list[str]) -> int:
    begun.append("begun")
    await asyncio.sleep(0)
    return 1


async def tasks() -> int:
    return len(asyncio.all_tasks()) - 2  # this one, and the one that runs until the thread is closed


async def test_an_interrupt_is_raised_as_it_is_wherever_it_comes(thread: LoopThread) -> None:
    def interrupted() -> int:
        for step in range(STEPS):
            interrupting, work = Interrupting(step), answer([])
            try:
                with interrupting:
                    thread.call(work)
            except KeyboardInterrupt:
                assert interrupting.raised
            # Whatever was left in the middle keeps nobody waiting.
            assert thread.call(answer([])) == 1
            work.close()
            if not interrupting.raised:
                return step
        raise AssertionError(f"expected the call to have fewer than {STEPS} steps")

    async with asyncio.timeout(60):
        assert await asyncio.to_thread(interrupted) > 10


async def test_what_is_waited_for_is_cancelled_with_the_wait(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def for_ever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def attend(*arguments: object) -> object:
        assert begun.wait(60)
        raise KeyboardInterrupt

    def waiting() -> None:
        monkeypatch.setattr("wakeline.blocking._wait", attend)
        with pytest.raises(KeyboardInterrupt):
            thread.call(for_ever())
        monkeypatch.undo()
        assert cancelled.wait(60)
        assert thread.call(tasks()) == 0

    await asyncio.to_thread(waiting)


async def test_what_the_work_raises_is_raised_here(thread: LoopThread) -> None:
    async def failing() -> None:
        raise ValueError("no")

    async def cancelling() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ValueError, match="no"):
        await asyncio.to_thread(lambda: thread.call(failing()))

    def cancelled() -> None:
        with pytest.raises(CancelledError, match="cancellation in the thread of the event loop"):
            thread.call(cancelling())

    await asyncio.to_thread(cancelled)


async def test_a_thread_does_not_wait_for_itself(thread: LoopThread) -> None:
    begun: list[str] = []

    async def within() -> None:
        thread.call(answer(begun))

    with pytest.raises(RuntimeError, match="expected a call from another thread, got one from interrupted"):
        await asyncio.to_thread(lambda: thread.call(within()))
    assert begun == []


async def test_a_closed_loop_is_told_and_what_was_wanted_never_begins(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    monkeypatch.setattr(thread, "_loop", closed)
    begun: list[str] = []
    with pytest.raises(RuntimeError, match="closed"):
        await asyncio.to_thread(lambda: thread.call(answer(begun)))
    monkeypatch.undo()
    assert begun == []
