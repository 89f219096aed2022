"""Slices of long work: it yields to the event loop every few milliseconds."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

SLICE_SECONDS: Final = 0.005


class Slice:
    """The time of work since the last yield to the event loop."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + SLICE_SECONDS

    def over(self) -> bool:
        """Whether the work should yield now."""
        return perf_counter() >= self._until

    async def rest(self) -> bool:
        """Yield to the event loop if the slice is over; return whether it was."""
        if not self.over():
            return False
        await asyncio.sleep(0)
        self._until = perf_counter() + SLICE_SECONDS
        return True
