"""Plain events of the compact form: held, or only located in the log."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Protocol, Self, TypeAlias

from wakeline.events import Event

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""First and last offset of each range, in order, neither overlapping nor adjacent."""

_offset = attrgetter("offset")


class Plain(Protocol):
    """The plain events of a fold."""

    def add(self, event: Event) -> int:
        """Add an event after all others; return the approximate number of bytes that it takes."""
        ...

    def remove(self, ranges: Ranges) -> None:
        """Remove the events at these offsets."""
        ...

    def extend(self, later: Self) -> None:
        """Add another's events, which all follow these."""
        ...

    def copy(self) -> Self:
        """Return a copy that can change independently."""
        ...

    def events(self) -> Iterable[Event]:
        """Return the events that are held, in order."""
        ...


class PlainEvents:
    """Plain events, held as a whole."""

    __slots__ = ("_events",)

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events = list(events)

    def add(self, event: Event) -> int:
        """Add an event."""
        self._events.append(event)
        return len(event.body)

    def remove(self, ranges: Ranges) -> None:
        """Remove the events at these offsets."""
        held = self._events
        kept: list[Event] = []
        at = 0
        for first, last in ranges:
            start, end = bisect_left(held, first, at, key=_offset), bisect_right(held, last, at, key=_offset)
            kept += held[at:start]
            at = max(at, end)
        self._events = kept + held[at:]

    def extend(self, later: PlainEvents) -> None:
        """Add another's events."""
        self._events += later._events

    def copy(self) -> PlainEvents:
        """Return a copy that can change independently."""
        return PlainEvents(self._events)

    def events(self) -> list[Event]:
        """Return all events."""
        return self._events


class PlainRanges:
    """The offsets of plain events, which are read from the log.

    Attributes:
        ranges: First and last offset of each stretch.
    """

    __slots__ = ("ranges",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.ranges = list(ranges)

    def add(self, event: Event) -> int:
        """Add an event's offset."""
        if self.ranges and self.ranges[-1][1] == event.offset - 1:
            self.ranges[-1] = (self.ranges[-1][0], event.offset)
            return 0
        self.ranges.append((event.offset, event.offset))
        return 64

    def remove(self, ranges: Ranges) -> None:
        """Remove these offsets."""
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
        """Add another's offsets."""
        more = later.ranges
        if self.ranges and more and self.ranges[-1][1] == more[0][0] - 1:
            self.ranges[-1] = (self.ranges[-1][0], more[0][1])
            more = more[1:]
        self.ranges += more

    def copy(self) -> PlainRanges:
        """Return a copy that can change independently."""
        return PlainRanges(self.ranges)

    def events(self) -> tuple[Event, ...]:
        """Return no events: they are in the log."""
        return ()
