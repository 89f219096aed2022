"""A session's compact form at one offset: folded events, and plain ones read from the log."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable
from itertools import accumulate, count
from operator import attrgetter, itemgetter
from typing import Final, TypeAlias

from wakeline.compact.plain import Ranges
from wakeline.events import COMPACT, Event, compose
from wakeline.gateway.delivery.gaps import RetentionGap
from wakeline.gateway.delivery.topics import Topics
from wakeline.gateway.log import Page

PAGE_BYTES: Final = 64 * 1024
"""The most bytes of a page with more than one event."""

_NEAR: Final = (
    256  # a gap of fewer events between two ranges is read and discarded, which is cheaper than a second read
)

Read: TypeAlias = Callable[[int, int, Topics | None], Awaitable[Page]]
"""Returns a page of the log, given its first offset, the offset to stop before, and the topics."""


class Snapshot:
    """A session's compact form at an offset.

    Args:
        offset: The offset at which the log continues.
        events: The folded events, in the order of offsets.
        ranges: The offsets of the plain events, which are only in the log: pairs of first and last.
        time: When the session was created: the `time` of the event at the end, which must be the same for every reader.

    Attributes:
        number: Identifies this snapshot. Another one at the same offset may have the same content in other events, so no
            reader may receive pages of both.
    """

    def __init__(self, offset: int, events: list[Event], ranges: Ranges, time: str) -> None:
        self.offset = offset
        self.number = next(_numbers)
        self._events = events
        self._ranges = ranges
        self._time = time

    def end(self) -> Event:
        """Return the `$compact` event that marks the end of the compact form."""
        count = len(self._events) + sum(last - first + 1 for first, last in self._ranges)
        data = b'{"events":%d,"next_offset":%d}' % (count, self.offset)
        return Event(self.offset - 1, COMPACT, compose(COMPACT, data, time=self._time).body)

    async def page(self, at: int, read: Read, topics: Topics | None) -> tuple[list[Event], int]:
        """Return the events of a page, and the offset of the next one.

        Args:
            at: The page's first offset.
            read: Reads the log.
            topics: Only events of these topics; None for all.

        Returns:
            The events, and where the next page begins: the snapshot's `offset` if this is the last one.
        """
        start = bisect_left(self._events, at, key=_offset)
        number = bisect_left(self._ranges, at, key=itemgetter(1))
        if number == len(self._ranges):
            return self._cut(self._folded(start, self.offset, topics), self.offset)
        first = max(at, self._ranges[number][0])
        before = self._folded(start, first, topics)
        if sum(len(event.body) for event in before) > PAGE_BYTES:
            return self._cut(before, first)
        page = await read(first, self._end_near(number), topics)
        found = [event for event in page.events if self._has(event)]
        merged = sorted(
            before + self._folded(start + self._count(start, first), page.next_offset, topics) + found, key=_offset
        )
        return self._cut(merged, page.next_offset)

    def _folded(self, start: int, before: int, topics: Topics | None) -> list[Event]:
        """Return the folded events from an index on, below an offset.

        They are a page at most, and one event more if there is one, from which `_cut` detects that the page is not the last.
        """
        found: list[Event] = []
        size = 0
        for index in range(start, len(self._events)):
            event = self._events[index]
            if event.offset >= before or size > PAGE_BYTES:
                break
            if topics is None or event.topic in topics or isinstance(event, RetentionGap):
                found.append(event)
                size += len(event.body)
        return found

    def _count(self, start: int, before: int) -> int:
        return bisect_left(self._events, before, start, key=_offset) - start

    def _end_near(self, number: int) -> int:
        """Return the end of the stretch that is read together with the range of this number."""
        last = self._ranges[number][1]
        for first, end in self._ranges[number + 1 : number + 1 + _NEAR]:
            if first - last > _NEAR:
                break
            last = end
        return last + 1

    def _has(self, event: Event) -> bool:
        at = bisect_left(self._ranges, event.offset, key=itemgetter(1))
        return isinstance(event, RetentionGap) or (at < len(self._ranges) and self._ranges[at][0] <= event.offset)

    def _cut(self, events: list[Event], next_offset: int) -> tuple[list[Event], int]:
        """Return the events that fit a page, and the offset of the next page."""
        for number, size in enumerate(accumulate(len(event.body) for event in events), 1):
            if size > PAGE_BYTES:
                # There may be more below `next_offset`, cut off here or before.
                most = max(number - 1, 1)
                return events[:most], min(next_offset, events[most - 1].offset + 1)
        return events, next_offset


_numbers = count()
_offset = attrgetter("offset")
