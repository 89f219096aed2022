"""The events that stand for themselves in the compact form: kept, or only counted where the log has them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Protocol, Self, TypeAlias

from wakeline.events import Event

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""First and last offset of each, in order, none touching another."""

_offset = attrgetter("offset")


class Plain(Protocol):
    """What a fold has of plain events."""

    def add(self, event: Event) -> int:
        """One more, after all others; about how many bytes it takes."""
        ...

    def remove(self, ranges: Ranges) -> None:
        """Those at these offsets count no more."""
        ...

    def extend(self, later: Self) -> None:
        """Take another's, which all come after these."""
        ...

    def copy(self) -> Self:
        """One that may change by itself."""
        ...

    def events(self) -> Iterable[Event]:
        """Those that are here, in order."""
        ...


class PlainEvents:
    """Keeps the events."""

    __slots__ = ("_events",)

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events = list(events)

    def add(self, event: Event) -> int:
        """One more."""
        self._events.append(event)
        return len(event.body)

    def remove(self, ranges: Ranges) -> None:
        """Forget those at these offsets."""
        held = self._events
        kept: list[Event] = []
        at = 0
        for first, last in ranges:
            start, end = bisect_left(held, first, at, key=_offset), bisect_right(held, last, at, key=_offset)
            kept += held[at:start]
            at = max(at, end)
        self._events = kept + held[at:]

    def extend(self, later: PlainEvents) -> None:
        """Take another's."""
        self._events += later._events

    def copy(self) -> PlainEvents:
        """One that may change by itself."""
        return PlainEvents(self._events)

    def events(self) -> list[Event]:
        """All of them."""
        return self._events


class PlainRanges:
    """Only knows where they stand: the log has them.

    Attributes:
        ranges: First and last offset of each stretch.
    """

    __slots__ = ("ranges",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.ranges = list(ranges)

    def add(self, event: Event) -> int:
        """One more."""
        if self.ranges and self.ranges[-1][1] == event.offset - 1:
            self.ranges[-1] = (self.ranges[-1][0], event.offset)
            return 0
        self.ranges.append((event.offset, event.offset))
        return 64

    def remove(self, ranges: Ranges) -> None:
        """Forget those at these offsets."""
        kept: list[tuple[int, int]] = []
        for first, last in self.ranges:
            at = max(0, bisect_right(ranges, (first, first)) - 1)
            for gone_first, gone_last in ranges[at:]:
                if gone_first > last:
                    break
                if gone_last >= first:
                    if gone_first > first:
                        kept.append((first, gone_first - 1))
                    first = gone_last + 1
            if first <= last:
                kept.append((first, last))
        self.ranges = kept

    def extend(self, later: PlainRanges) -> None:
        """Take another's."""
        more = later.ranges
        if self.ranges and more and self.ranges[-1][1] == more[0][0] - 1:
            self.ranges[-1] = (self.ranges[-1][0], more[0][1])
            more = more[1:]
        self.ranges += more

    def copy(self) -> PlainRanges:
        """One that may change by itself."""
        return PlainRanges(self.ranges)

    def events(self) -> tuple[Event, ...]:
        """None of them: the log has them."""
        return ()
