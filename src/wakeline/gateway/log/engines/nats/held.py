"""A session's state in memory: the fold of its messages."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import Counter
from operator import attrgetter
from typing import Final

import msgspec

from wakeline.gateway.log.engines.nats.messages import Effect, Message, Summary, encode
from wakeline.gateway.log.owners import Owner, move
from wakeline.gateway.log.portable import StoredPublisher
from wakeline.gateway.log.stretch import HeldPublisher, Stretch
from wakeline.gateway.log.values import SessionState

SNAPSHOT_BYTES: Final = 128 * 1024
"""Bytes of messages after which a snapshot follows.

Fewer messages are then read to load the session.
"""

REMEMBERED: Final = 1_000
"""Stretches of a publisher that stay exact, whatever retention removes."""

_SHARE: Final = 8  # a snapshot is at most this part of what is written


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
        self.publishers: dict[str, HeldPublisher] = {}
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

    def put(self, stored: StoredPublisher) -> None:
        """Add a publisher that is not there."""
        publisher = self.publishers[stored.name] = HeldPublisher.of(stored)
        move(self.owned, None, publisher.owner)

    def apply(self, effect: Effect) -> None:
        """Carry out what a message changes of a publisher."""
        publisher = self.publishers.get(effect.publisher)
        if effect.forgets:
            move(self.owned, self.publishers.pop(effect.publisher).owner, None)
            return
        if publisher is None or effect.begins:
            earlier = publisher
            publisher = self.publishers[effect.publisher] = HeldPublisher(
                effect.attempt, earlier.owner if earlier is not None else None
            )
            if earlier is not None and not effect.supersedes:
                publisher.kept = sorted(earlier.ranges())
        if effect.owner is not None:
            owner = Owner.parse(effect.owner)
            move(self.owned, publisher.owner, owner)
            publisher.owner = owner
        if effect.next_sequence > effect.first_sequence:
            publisher.add(Stretch(effect.first_sequence, effect.next_sequence, effect.first_offset, effect.next_offset))

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
            _forget(publisher, self.summary.first_offset)
        return zlib.compress(encode([publisher.stored(name) for name, publisher in self.publishers.items()]), 1)

    def _load(self, snapshot: bytes) -> None:
        self.begin()
        for stored in _decode(zlib.decompress(snapshot)):
            self.put(stored)


def _forget(publisher: HeldPublisher, first_offset: int) -> None:
    """Merge old stretches of removed events into one rough one: the engine `sqlite` says why."""
    removed = bisect_right(publisher.stretches, first_offset, key=attrgetter("next_offset"))
    removed = min(removed, len(publisher.stretches) - REMEMBERED)
    if removed > 1:
        old, last = publisher.stretches[:removed], publisher.stretches[removed - 1]
        first = last.next_offset - sum(one.next_offset - one.first_offset for one in old)
        merged = Stretch(old[0].first_sequence, last.next_sequence, first, last.next_offset, rough=True)
        publisher.stretches[:removed] = [merged]
    removed = min(bisect_right(publisher.kept, first_offset, key=lambda one: one[1]), len(publisher.kept) - REMEMBERED)
    if removed > 1:
        after = publisher.kept[removed - 1][1]
        count = sum(after - first for first, after, _ in publisher.kept[:removed])
        publisher.kept[:removed] = [(after - count, after, True)]


_decode: Final = msgspec.msgpack.Decoder(list[StoredPublisher]).decode
