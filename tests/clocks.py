"""A clock that stands still until a test moves it."""

from __future__ import annotations


class Clock:
    """Stands for a module's `monotonic` or `time` function, or for the module `time`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now
