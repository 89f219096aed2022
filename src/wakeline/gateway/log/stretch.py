"""A stretch of a publisher, by which engines find a retry's offsets and publications."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Final, Protocol

from wakeline.gateway.log.values import Published


@dataclass(slots=True)
class Stretch:
    """One row of `publications`: sequences [first, next) at offsets [first, next).

    Attributes:
        rough: Whether the offsets are only as many as its events, because those were removed.
    """

    first_sequence: int
    next_sequence: int
    first_offset: int
    next_offset: int
    rough: bool = False

    def extends_to(self, sequence: int, offset: int) -> bool:
        """Return whether events from this sequence and offset on belong to the same row."""
        one_to_one = self.next_sequence - self.first_sequence == self.next_offset - self.first_offset
        return one_to_one and self.next_sequence == sequence and self.next_offset == offset


class Publishes(Protocol):
    """A publisher as an engine holds it in memory.

    Attributes:
        stretches: The stretches of its present attempt, in order.
        kept: The offsets of the valid events of earlier attempts, in order: first, next, and whether they are rough.
    """

    stretches: list[Stretch]
    kept: list[tuple[int, int, bool]]

    @property
    def attempt(self) -> int:
        """Its present attempt."""
        ...


def published_at(offset: int, publishers: Mapping[str, Publishes]) -> Published | None:
    """Return the publication of a kept event; None if no publisher has it.

    It runs on the event loop, for up to 10,000 publishers: most are skipped by the ends of their lists, which are not copied.
    """
    for name, one in publishers.items():
        stretches, kept = one.stretches, one.kept
        if stretches and stretches[-1].next_offset > offset >= stretches[0].first_offset:
            found = stretches[bisect_right(stretches, offset, key=_first_offset) - 1]
            if offset < found.next_offset and not found.rough:
                # All events of one request of a Durable Streams producer have the request's sequence.
                sequence = min(found.first_sequence + offset - found.first_offset, found.next_sequence - 1)
                return Published(name, one.attempt, sequence)
        if kept and kept[-1][1] > offset >= kept[0][0]:
            _, after, rough = kept[bisect_right(kept, offset, key=_first) - 1]
            if offset < after and not rough:
                return Published(name)
    return None


_first_offset: Final = attrgetter("first_offset")
_first: Final = itemgetter(0)
