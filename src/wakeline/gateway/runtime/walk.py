"""A walk over all names of a store, in steps, which may be requested again at any time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

_REST: Final = 4.0
"""How many times as long as a walk took the next one waits, so that walks take at most a fifth of the time."""


class Walk:
    """The place of a walk; it begins at the first name.

    Args:
        step: Checks the next names after one, and returns the last of them; None at the end.
    """

    def __init__(self, step: Callable[[str], Awaitable[str | None]]) -> None:
        self._step = step
        self._after: str | None = ""
        self._times = 0  # how often it has begun
        self._began = self._ended = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether all names were checked since the walk was requested last."""
        return self._after is None

    def restart(self) -> None:
        """Check all names again, those of a step under way, too."""
        self._after = ""
        self._times += 1

    def repeat(self, every: float) -> None:
        """Restart if the walk has been over for so many seconds, and four times as long as it took."""
        if self.is_over and time.monotonic() > self._ended + max(every, _REST * (self._ended - self._began)):
            self.restart()

    async def go_on(self) -> None:
        """Take the next step, unless the walk is over."""
        if self._after is None:
            return
        if self._after == "":
            self._began = time.monotonic()
        times, reached = self._times, await self._step(self._after)
        if times == self._times:  # otherwise it restarts: the step has checked what was so before
            self._after = reached
        if self.is_over:
            self._ended = time.monotonic()
