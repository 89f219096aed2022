"""The stretches of a publisher, by which engines find a retry's offsets and publications."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Final

from wakeline.gateway.log.owners import Owner
from wakeline.gateway.log.portable import StoredPublisher
from wakeline.gateway.log.values import Position, Published


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

    def extend(self, other: Stretch) -> bool:
        """Add a later stretch to this one; return False if it needs its own row."""
        # One row can have both if each sequence has one event: then all offsets are as far from their sequences.
        far = self.first_offset - self.first_sequence
        if (
            self.next_sequence == other.first_sequence
            and self.next_offset == other.first_offset
            and self.next_offset - self.next_sequence == far
            and other.next_offset - other.next_sequence == far
        ):
            self.next_sequence, self.next_offset = other.next_sequence, other.next_offset
            return True
        return False

    def offset_of(self, sequence: int) -> int:
        """Return the offset of one of its events."""
        # All sequences that one event stands for have its offset.
        return min(self.first_offset + sequence - self.first_sequence, self.next_offset - 1)


class HeldPublisher:
    """A publisher as an engine holds it in memory.

    Attributes:
        attempt: Its present attempt.
        owner: Its owner; None if it has none.
        stretches: The stretches of its present attempt, in order.
        kept: The offsets of the valid events of earlier attempts, in order: first, next, and whether they are rough.
    """

    __slots__ = ("attempt", "kept", "owner", "stretches")

    def __init__(self, attempt: int, owner: Owner | None) -> None:
        self.attempt = attempt
        self.owner = owner
        self.stretches: list[Stretch] = []
        self.kept: list[tuple[int, int, bool]] = []

    @classmethod
    def of(cls, stored: StoredPublisher) -> HeldPublisher:
        """Return a publisher as it was stored."""
        publisher = cls(stored.attempt, Owner.parse(stored.owner))
        publisher.stretches = [Stretch(*stretch) for stretch in stored.stretches]
        publisher.kept = list(stored.kept)
        return publisher

    def stored(self, name: str) -> StoredPublisher:
        """Return this publisher in the form in which it is stored."""
        stretches = [
            (one.first_sequence, one.next_sequence, one.first_offset, one.next_offset, one.rough)
            for one in self.stretches
        ]
        owner = None if self.owner is None else self.owner.text()
        return StoredPublisher(name, self.attempt, owner, tuple(stretches), tuple(self.kept))

    @property
    def position(self) -> Position:
        """The position, as the decision of an append needs it."""
        return Position(self.attempt, self.stretches[-1].next_sequence if self.stretches else 0, self.owner)

    def ranges(self) -> list[tuple[int, int, bool]]:
        """Return the ranges of offsets of events that are not superseded, and which are rough."""
        return [*self.kept, *((one.first_offset, one.next_offset, one.rough) for one in self.stretches)]

    def offsets(self) -> list[tuple[int, int]]:
        """Return the ranges of offsets of the events that are not superseded, without rough ones."""
        return [(first, after) for first, after, rough in self.ranges() if not rough]

    def offset_of(self, sequence: int) -> int:
        """Return the offset of an event of the present attempt."""
        return self.stretches[bisect_right(self.stretches, sequence, key=_first_sequence) - 1].offset_of(sequence)

    def add(self, stretch: Stretch) -> None:
        """Add sequences at offsets."""
        if not (self.stretches and self.stretches[-1].extend(stretch)):
            self.stretches.append(stretch)


def published_at(offset: int, publishers: Mapping[str, HeldPublisher]) -> Published | None:
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
_first_sequence: Final = attrgetter("first_sequence")
_first: Final = itemgetter(0)
