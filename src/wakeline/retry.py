"""The pauses between two attempts, for every retry in the package."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Pauses that double after each failure, each shortened at random.

    Args:
        first: Seconds of the pause after the first failure.
        longest: Seconds of the longest pause.
        jitter: The greatest fraction by which a pause is shortened, so that many clients do not retry at once; half by
            default.

    Attributes:
        failures: The failures since the last `reset`.
    """

    def __init__(self, first: float = 0.05, longest: float = 2.0, *, jitter: float = 0.5) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0

    def pause(self) -> float:
        """Count a failure, and return the seconds to wait before the next attempt."""
        longest = min(self._first * 2.0 ** min(self.failures, 60), self._longest)
        self.failures += 1
        return longest * random.uniform(1 - self._jitter, 1)

    async def wait(self, least: float = 0.0) -> None:
        """Count a failure, and wait before the next attempt; `least` seconds longer."""
        await asyncio.sleep(least + self.pause())

    def reset(self) -> None:
        """Start again from the first pause: an attempt succeeded."""
        self.failures = 0
