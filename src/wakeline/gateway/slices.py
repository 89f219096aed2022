"""Work in slices: whoever has much to do gives the loop its turn now and then."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

SLICE_SECONDS: Final = 0.005


class Slice:
    """The stretch of work since the loop last had its turn."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + SLICE_SECONDS

    def over(self) -> bool:
        """Whether the loop is due a turn."""
        return perf_counter() >= self._until

    async def rest(self) -> bool:
        """Give the loop its turn if it is due one; tells whether it was."""
        if not self.over():
            return False
        await asyncio.sleep(0)
        self._until = perf_counter() + SLICE_SECONDS
        return True
