"""Detects steps of the wall clock, because timers for `exp` run by the monotonic clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

import structlog

from wakeline.gateway.runtime.slices import Slice

_LOOK_SECONDS: Final = 0.25
_STEP_SECONDS: Final = 0.2
"""The change in the difference of the two clocks from which timers are set again."""

_log = structlog.get_logger(__name__)

_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, set[Callable[[], None]]] = WeakKeyDictionary()


def listen_steps(listener: Callable[[], None]) -> None:
    """Call `listener` in this event loop after each step of the wall clock."""
    _listeners.setdefault(asyncio.get_running_loop(), set()).add(listener)


def forget_steps(listener: Callable[[], None]) -> None:
    """Stop calling `listener`."""
    _listeners.get(asyncio.get_running_loop(), set()).discard(listener)


async def watch_clock() -> None:
    """Detect that the wall clock was set, or the machine slept; runs for ever."""
    loop = asyncio.get_running_loop()
    apart = time.time() - loop.time()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        step = time.time() - loop.time() - apart
        if abs(step) < _STEP_SECONDS:
            continue
        apart += step
        listeners, work = _listeners.get(loop, set()), Slice()
        _log.warning("the wall clock was set, or the machine slept", seconds=round(step, 1), timers=len(listeners))
        for listener in tuple(listeners):
            if listener in listeners:  # otherwise its owner has ended meanwhile
                listener()
            await work.rest()
