"""The catalog of a gateway: every session, as of its last message that arrived here."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from wakeline.gateway.log.engines.nats.messages import Summary
from wakeline.gateway.log.names import in_ranges, name_ranges
from wakeline.gateway.log.values import SessionState

T = TypeVar("T", str, float)


class Index:
    """Keeps the last summary of each session, their names in order, ages and deadlines.

    Attributes:
        ended: Sessions that were deleted: the sequence of their last message, and when that arrived here.
    """

    def __init__(self) -> None:
        self.ended: dict[str, tuple[int, float]] = {}
        self._known: dict[str, tuple[int, Summary]] = {}
        self._names: list[str] = []
        self._ages: list[tuple[str, str]] = []
        self._deadlines: list[tuple[float, str]] = []

    def seq(self, name: str) -> int:
        """Return the sequence of the last message that is known of a session; 0 if none is."""
        known = self._known.get(name)
        return known[0] if known is not None else 0

    def get(self, name: str) -> Summary | None:
        """Return the last known state of a session or draft; None if there is none."""
        known = self._known.get(name)
        return known[1] if known is not None and known[1].alive else None

    def apply(self, seq: int, now: Summary) -> Summary | None:
        """Take in a message; return the state before it; None if there was no session."""
        name = now.session
        known = self._known.get(name)
        if known is not None and known[0] >= seq:
            return None
        before = known[1] if known is not None else None
        self._known[name] = (seq, now)
        was, lives = before is not None and before.alive, now.alive
        if lives and not was:
            insort(self._names, name)
        elif was and not lives:
            del self._names[bisect_left(self._names, name)]
        earlier = before if was else None
        _move(self._ages, name, earlier.created if earlier else None, now.created if lives else None)
        _move(self._deadlines, name, earlier.deadline if earlier else None, now.deadline)
        if lives:
            self.ended.pop(name, None)
        else:
            self.ended[name] = (seq, time.monotonic())
        return earlier

    def unknown_to(self, known: Callable[[str, int], bool]) -> list[str]:
        """Return the names whose last message `known` denies."""
        return [name for name, (seq, _) in self._known.items() if not known(name, seq)]

    def drop(self, name: str) -> Summary | None:
        """Forget a session whose messages are gone; return its last state; None if it had ended."""
        known = self._known.pop(name)[1]
        self.ended.pop(name, None)
        if not known.alive:
            return None
        del self._names[bisect_left(self._names, name)]
        _move(self._ages, name, known.created, None)
        _move(self._deadlines, name, known.deadline, None)
        return known

    def forget(self, name: str, seq: int) -> None:
        """Forget a session that has ended with this message."""
        if self.ended.get(name, (0, 0.0))[0] == seq:
            del self.ended[name]
            del self._known[name]

    def alive(self) -> list[Summary]:
        """Return the last known state of every session and draft."""
        return [self._known[name][1] for name in self._names]

    def sessions(self, after: str, limit: int, within: Sequence[str]) -> list[SessionState]:
        """Return sessions by name; see `Catalog.sessions`."""
        found: list[SessionState] = []
        for first, end in name_ranges(within):
            at = max(bisect_left(self._names, first), bisect_right(self._names, after))
            while at < len(self._names) and len(found) < limit and (end is None or self._names[at] < end):
                summary = self._known[self._names[at]][1]
                if not summary.draft:
                    found.append(summary.state())
                at += 1
        return found

    def newest(
        self, before: tuple[str, str] | None, limit: int, within: Sequence[str], contains: str
    ) -> list[SessionState]:
        """Return sessions by age; see `Index.newest` of the ports."""
        ranges = name_ranges(within)
        at = len(self._ages) if before is None else bisect_left(self._ages, before)
        names = (name for _, name in reversed(self._ages[:at]) if contains in name and in_ranges(name, ranges))
        older = (self._known[name][1] for name in names)
        return list(islice((each.state() for each in older if not each.draft), limit))

    def due(self, now: float, limit: int) -> list[tuple[str, str]]:
        """Return the sessions and drafts whose deadlines have passed; see `Catalog.due`."""
        end = bisect_right(self._deadlines, now, key=lambda one: one[0])
        return [(name, self._known[name][1].epoch) for _, name in self._deadlines[: min(end, limit)]]


def _move(ordered: list[tuple[T, str]], name: str, before: T | None, now: T | None) -> None:
    """Move a session from its place in an order to another one; None is no place."""
    if before == now:
        return
    if before is not None:
        del ordered[bisect_left(ordered, (before, name))]
    if now is not None:
        insort(ordered, (now, name))
