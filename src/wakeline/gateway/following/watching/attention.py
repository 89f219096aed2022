"""How closely runs are watched: only some closely, first those whose sessions have devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from wakeline.background import cancel_all

_ASSIGN_SECONDS: Final = 0.2
T = TypeVar("T")


class Attention:
    """How closely a run is watched, which may change at any moment."""

    def __init__(self) -> None:
        self.closely = False
        self._changed = asyncio.Event()

    def set(self, *, closely: bool) -> None:
        """Watch it so from now on."""
        if closely != self.closely:
            self.closely = closely
            self._changed.set()
            self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Return when it changes."""
        await self._changed.wait()

    async def while_so(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of some work; None if the attention changes first, which ends it."""
        # Listened for from this moment on: it may change before a task has taken its first step.
        working, changing = asyncio.ensure_future(work), asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait([working, changing], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            await cancel_all(working, changing)


def assign(runs: list[tuple[bool, Attention]], most: int) -> None:
    """Watch at most so many runs closely.

    Args:
        runs: Each run's attention, and whether devices are on its session: those come first, then those watched closely.
        most: How many to watch closely.
    """
    if len(runs) > most:
        runs.sort(key=lambda run: (not run[0], not run[1].closely))
    for place, (_, attention) in enumerate(runs):
        attention.set(closely=place < most)


async def keep_assigning(changed: asyncio.Event, runs: Callable[[], list[tuple[bool, Attention]]], most: int) -> None:
    """Watch at most so many runs closely, whenever there are others or devices come and go.

    Args:
        changed: Set by each change.
        runs: Returns what `assign` takes.
        most: How many to watch closely.
    """
    while True:
        await changed.wait()
        changed.clear()
        assign(runs(), most)
        await asyncio.sleep(_ASSIGN_SECONDS)
