"""A session's state in memory: the fold of its messages."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Final

import msgspec

from wakeline.gateway.log.engines.nats.messages import Effect, Message, Summary, encode
from wakeline.gateway.log.owners import Owner, move
from wakeline.gateway.log.stretch import Stretch
from wakeline.gateway.log.values import Position, SessionState

SNAPSHOT_BYTES: Final = 128 * 1024
"""Bytes of messages after which a snapshot follows.

Fewer messages are then read to load the session.
"""

REMEMBERED: Final = 1_000
"""Stretches of a publisher that stay exact, whatever retention removes."""

_SHARE: Final = 8  # a snapshot is at most this part of what is written


class Publisher:
    """A publisher's attempt, its stretches, and its earlier events that still count."""

    __slots__ = ("attempt", "kept", "owner", "stretches")

    def __init__(self, attempt: int, owner: Owner | None) -> None:
        self.attempt = attempt
        self.owner = owner
        self.stretches: list[Stretch] = []
        self.kept: list[tuple[int, int, bool]] = []

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
        found = self.stretches[bisect_right(self.stretches, sequence, key=attrgetter("first_sequence")) - 1]
        return min(found.first_offset + sequence - found.first_sequence, found.next_offset - 1)

    def add(self, first_sequence: int, next_sequence: int, first_offset: int, next_offset: int) -> None:
        """Add sequences at offsets."""
        last = self.stretches[-1] if self.stretches else None
        one_to_one = next_sequence - first_sequence == next_offset - first_offset
        if last is not None and one_to_one and last.extends_to(first_sequence, first_offset):
            last.next_sequence, last.next_offset = next_sequence, next_offset
        else:
            self.stretches.append(Stretch(first_sequence, next_sequence, first_offset, next_offset))

    def forget(self, first_offset: int) -> None:
        """Merge old stretches of removed events into one rough one: the engine `sqlite` says why."""
        removed = bisect_right(self.stretches, first_offset, key=attrgetter("next_offset"))
        removed = min(removed, len(self.stretches) - REMEMBERED)
        if removed > 1:
            old, last = self.stretches[:removed], self.stretches[removed - 1]
            first = last.next_offset - sum(one.next_offset - one.first_offset for one in old)
            merged = Stretch(old[0].first_sequence, last.next_sequence, first, last.next_offset, rough=True)
            self.stretches[:removed] = [merged]
        removed = min(bisect_right(self.kept, first_offset, key=lambda one: one[1]), len(self.kept) - REMEMBERED)
        if removed > 1:
            after = self.kept[removed - 1][1]
            count = sum(after - first for first, after, _ in self.kept[:removed])
            self.kept[:removed] = [(after - count, after, True)]


class Held:
    """A session as of one message of its subject, or the absence of a session.

    Attributes:
        seq: The sequence of that message; 0 if the subject has none.
        summary: The state, without the publishers; None if there never was a session.
        publishers: The publishers by name.
        owned: The number of publishers of each owner.
        snapshot_at: The sequence of the last message with a snapshot.
        snapshot_size: The size of that snapshot.
    """

    __slots__ = ("owned", "publishers", "seq", "snapshot_at", "snapshot_size", "summary")

    def __init__(self) -> None:
        self.seq = 0
        self.summary: Summary | None = None
        self.publishers: dict[str, Publisher] = {}
        self.owned: Counter[str] = Counter()
        self.snapshot_at = 0
        self.snapshot_size = 0

    @property
    def alive(self) -> bool:
        """Whether there is a session."""
        return self.summary is not None and self.summary.alive

    def state(self, publisher: str | None) -> SessionState | None:
        """Return the state with a publisher's position; None for no session or a draft."""
        if self.summary is None or not self.summary.alive or self.summary.draft:
            return None
        found = self.publishers.get(publisher) if publisher is not None else None
        return msgspec.structs.replace(self.summary.state(), position=found.position if found else None)

    def begin(self) -> None:
        """Forget the publishers of an earlier life."""
        self.publishers, self.owned = {}, Counter()

    def apply(self, effect: Effect) -> None:
        """Carry out what a message changes of a publisher."""
        publisher = self.publishers.get(effect.publisher)
        if effect.forgets:
            move(self.owned, self.publishers.pop(effect.publisher).owner, None)
            return
        if publisher is None or effect.begins:
            earlier = publisher
            publisher = self.publishers[effect.publisher] = Publisher(
                effect.attempt, earlier.owner if earlier is not None else None
            )
            if earlier is not None and not effect.supersedes:
                publisher.kept = sorted(earlier.ranges())
        if effect.owner is not None:
            owner = Owner.parse(effect.owner)
            move(self.owned, publisher.owner, owner)
            publisher.owner = owner
        if effect.next_sequence > effect.first_sequence:
            publisher.add(effect.first_sequence, effect.next_sequence, effect.first_offset, effect.next_offset)

    def go_on(self, seq: int, message: Message) -> None:
        """Continue with the next message of the subject."""
        if message.snapshot is not None:
            self._load(message.snapshot)
        else:
            for effect in message.effects:
                self.apply(effect)
        self.reach(seq, message)

    def reach(self, seq: int, message: Message) -> None:
        """Be at a message whose effects are applied."""
        self.seq, self.summary = seq, message.summary
        if message.snapshot is not None:
            self.snapshot_at, self.snapshot_size = seq, len(message.snapshot)
        if not message.summary.alive:
            self.begin()

    def snapshot_due(self) -> bool:
        """Return whether the next message should carry a snapshot."""
        since = self.summary.since if self.summary is not None else 0
        return since > max(SNAPSHOT_BYTES, self.snapshot_size * _SHARE)

    def snapshot(self) -> bytes:
        """Return the publishers as a message carries them."""
        assert self.summary is not None
        for publisher in self.publishers.values():
            publisher.forget(self.summary.first_offset)
        rows = [
            (
                name,
                publisher.attempt,
                publisher.owner.text() if publisher.owner is not None else None,
                [
                    (one.first_sequence, one.next_sequence, one.first_offset, one.next_offset, one.rough)
                    for one in publisher.stretches
                ],
                publisher.kept,
            )
            for name, publisher in self.publishers.items()
        ]
        return zlib.compress(encode(rows), 1)

    def _load(self, snapshot: bytes) -> None:
        self.begin()
        for name, attempt, owner, stretches, kept in _rows(zlib.decompress(snapshot)):
            publisher = self.publishers[name] = Publisher(attempt, Owner.parse(owner))
            publisher.stretches = [Stretch(*one) for one in stretches]
            publisher.kept = kept
            move(self.owned, None, publisher.owner)


def folded(messages: Iterable[tuple[int, Message]]) -> Held:
    """Return the state after messages, the first of which has a snapshot."""
    held = Held()
    for seq, message in messages:
        held.go_on(seq, message)
    return held


_Row = tuple[str, int, str | None, list[tuple[int, int, int, int, bool]], list[tuple[int, int, bool]]]
_rows = msgspec.msgpack.Decoder(list[_Row]).decode
