"""Slices of long work: it yields to the event loop every few milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final, TypeVar

from wakeline.text import check_mendable, mended_pieces

T = TypeVar("T")

SLICE_SECONDS: Final = 0.005


class Slice:
    """The duration of work since the last yield to the event loop."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + SLICE_SECONDS

    def over(self) -> bool:
        """Return whether the work should yield now."""
        return perf_counter() >= self._until

    async def rest(self) -> bool:
        """Yield to the event loop if the slice is over; return whether it was."""
        if not self.over():
            return False
        await asyncio.sleep(0)
        self._until = perf_counter() + SLICE_SECONDS
        return True


async def read_whole_in_slices(decode: Callable[[bytes], T], data: bytes) -> T:
    """Decode JSON as `read_whole` does, yielding to the event loop while halves are replaced.

    Args:
        decode: Raises a `ValueError` for JSON that it cannot read.
        data: The JSON.
    """
    try:
        return decode(data)
    except ValueError as error:
        check_mendable(error, data)
    work = Slice()
    pieces: list[bytes] = []
    for piece in mended_pieces(data):
        pieces.append(piece)
        await work.rest()
    return decode(b"".join(pieces))
