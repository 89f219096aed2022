"""Stretches of logs that need not be read, because no rule names a topic in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wakeline.events import Event

_MOST: Final = 100_000
LAG: Final = 5_000
"""Events that a stored cursor may be behind: a restart reads them again."""


class Quiet:
    """For each session that had commits, the last stretch without an event that concerns a rule."""

    def __init__(self) -> None:
        self._stretches: dict[str, tuple[str, int, int]] = {}  # epoch, begin and end

    def hear(self, session: str, epoch: str, events: Sequence[Event]) -> int:
        """Extend a session's stretch by a commit without such an event; return the stretch's length."""
        begin, end = events[0].offset, events[-1].offset + 1
        known = self._stretches.pop(session, None)  # written at the end: those that were silent longest are forgotten
        if known is not None and known[0] == epoch and known[2] == begin:
            begin = known[1]
        self._put(session, epoch, begin, end)
        return end - begin

    def note(self, session: str, epoch: str, begin: int, end: int) -> None:
        """Note a stretch that was read without a match; join it to one that continues it."""
        known = self._stretches.pop(session, None)
        if known is not None and known[0] == epoch and known[1] <= end:
            begin, end = min(begin, known[1]), max(end, known[2])
        self._put(session, epoch, begin, end)

    def _put(self, session: str, epoch: str, begin: int, end: int) -> None:
        if len(self._stretches) >= _MOST:
            del self._stretches[next(iter(self._stretches))]
        self._stretches[session] = (epoch, begin, end)

    def skip(self, session: str, epoch: str, offset: int) -> tuple[int, int | None]:
        """Return where to read on.

        Args:
            session: The session's name.
            epoch: Its epoch.
            offset: The offset up to which the log was matched.

        Returns:
            The first offset to read, and the offset to read up to; None for the log's end.
        """
        known = self._stretches.get(session)
        if known is None or known[0] != epoch or offset >= known[2]:
            return offset, None
        return (known[2], None) if offset >= known[1] else (offset, known[1])

    def forget(self, session: str) -> None:
        """Forget a session's stretch."""
        self._stretches.pop(session, None)
