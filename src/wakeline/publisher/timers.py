"""Named timers of an object that belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Name = TypeVar("Name")


class Timers(Generic[Name]):
    """Delayed calls in an event loop, at most one at a time under each name.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handles: dict[Name, asyncio.TimerHandle] = {}

    def start(self, name: Name, seconds: float, call: Callable[[], None]) -> None:
        """Call a function after this time, unless a timer of this name runs."""
        if name in self._handles:
            return

        def fire() -> None:
            del self._handles[name]
            call()

        self._handles[name] = self._loop.call_later(seconds, fire)

    def cancel(self, name: Name) -> None:
        """Cancel the timer of this name, if one runs."""
        if handle := self._handles.pop(name, None):
            handle.cancel()

    def cancel_all(self) -> None:
        """Cancel every timer."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
