"""Which sessions are due, and when."""

from __future__ import annotations

import heapq


class Timetable:
    """The next due time of each session: the earliest of those that were set."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # with entries that `_times` does not have any more

    def __len__(self) -> int:
        return len(self._times)

    def set(self, session: str, time: float) -> None:
        """Have a session due at a time, or earlier if it is due earlier already."""
        if time < self._times.get(session, float("inf")):
            self._times[session] = time
            heapq.heappush(self._heap, (time, session))

    def pop(self, now: float) -> str | None:
        """Remove and return a session that is due; None if there is none."""
        while self._heap and self._heap[0][0] <= now:
            time, session = heapq.heappop(self._heap)
            if self._times.get(session) == time:
                del self._times[session]
                return session
        return None

    def next(self) -> float | None:
        """Return the earliest time; None if no session is due."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
