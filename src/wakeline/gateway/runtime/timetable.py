"""Which keys are due, and when, however many there are."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

K = TypeVar("K", str, tuple[str, str])

_SPARE: Final = 1000
"""Outdated entries that may stay in the heap beside as many as there are keys."""


class Timetable(Generic[K]):
    """The times at which keys are due, the first of which is found without a scan."""

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        # In the order of a heap; an entry that `_at` has no longer is passed over.
        self._heap: list[tuple[float, K]] = []

    def __len__(self) -> int:
        """Return how many entries are in memory, the outdated ones included."""
        return len(self._heap)

    def put(self, key: K, at: float) -> bool:
        """Have a key due at a time, whatever it had before; return whether it is now the first."""
        if self._at.get(key) != at:
            self._at[key] = at
            heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + _SPARE:
            self._heap = [(time, each) for each, time in self._at.items()]
            heapify(self._heap)
        return self._heap[0] == (at, key)

    def put_earlier(self, key: K, at: float) -> None:
        """Have a key due at a time, or earlier if it is due earlier already."""
        self.put(key, min(at, self._at.get(key, at)))

    def remove(self, key: K) -> None:
        """Have a key not due any more."""
        self._at.pop(key, None)

    def first(self) -> float | None:
        """Return the earliest time; None if no key is due at any."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> K | None:
        """Remove and return the first key that is due; None if none is."""
        if (first := self.first()) is None or first > now:
            return None
        _, key = heappop(self._heap)
        del self._at[key]
        return key
