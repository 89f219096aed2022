"""The fold: a session's state as a reader of the whole log would hold it, event by event."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable
from operator import attrgetter, itemgetter

import msgspec

from wakeline.compact.entries import STRETCH_BYTES, Compaction, Keyed, Message, Segment, State, Writer
from wakeline.compact.operations import UNDECODABLE, Change
from wakeline.compact.plain import Plain, PlainEvents
from wakeline.events import ATTEMPT_SUPERSEDED, COMPACT, Event

_PIECE = b'"message":{'
_KEY = b'"key":"'


class Piece(msgspec.Struct, frozen=True, gc=False):
    """An event's place in a message that grows."""

    id: str
    op: str
    complete: bool = False


class Body(msgspec.Struct, frozen=True, gc=False):
    """The fields of an event that make up the state of its session."""

    data: msgspec.Raw = msgspec.Raw(b"")
    time: str = ""
    run: str | None = None
    activity: str | None = None
    attempt: int | None = None
    key: str | None = None
    message: Piece | None = None
    compact: Compaction | None = None


class Superseding(msgspec.Struct, frozen=True):
    """The data of `$attempt.superseded`."""

    offsets: list[tuple[int, int]]


decode_body = msgspec.json.Decoder(Body).decode
decode_superseding = msgspec.json.Decoder(Superseding).decode


def is_special(event: Event) -> bool:
    """Return whether an event may be keyed, a piece of a message, or superseding.

    The check reads no JSON, so a few plain events pass it, too.
    """
    return _PIECE in event.body or _KEY in event.body or event.topic == ATTEMPT_SUPERSEDED


class Fold:
    """The state after a stretch of a session's events.

    `extend` joins the folds of two neighbouring stretches; the result equals one fold of both.

    Args:
        offset: Offset where the stretch begins.
        plain: How plain events are held; by default as a whole.
        bound: Approximate limit on the bytes of an event of the compact form; a larger value becomes several events.

    Attributes:
        first_offset: Offset where the stretch begins.
        next_offset: Offset after its last event.
        messages: The messages that grow, by topic and id.
        keyed: Keyed state, by topic and key.
        superseded: Ranges of offsets before the stretch that its events supersede.
        size: Approximate number of bytes in memory.
    """

    def __init__(self, offset: int = 0, plain: Plain | None = None, *, bound: int = STRETCH_BYTES) -> None:
        self._bound = bound
        self.first_offset = offset
        self.next_offset = offset
        self.messages: dict[tuple[str, str], Message] = {}
        self.keyed: dict[tuple[str, str], Keyed] = {}
        self.plain: Plain = PlainEvents() if plain is None else plain
        self.superseded: list[tuple[int, int]] = []
        self.size = 0

    def add(self, event: Event) -> None:
        """Add the next event of the log, or of a compact form that the log follows."""
        self.next_offset = event.offset + 1
        if event.topic == COMPACT:
            return
        if not is_special(event):
            self.size += self.plain.add(event)
            return
        try:
            body = decode_body(b"{" + event.body)
        except UNDECODABLE:
            self.size += self.plain.add(event)
            return
        if event.topic == ATTEMPT_SUPERSEDED:
            self._add_superseding(body)
        elif body.message is not None and body.data:
            self._add_piece(event, body, body.message)
        elif body.key is not None:
            self._add_state(event, body, body.key)
        else:
            self.size += self.plain.add(event)

    def take_back(self, event: Event) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Add a superseding event; return the names of the messages and states that it changes."""
        stamps = {name: message.stamp for name, message in self.messages.items()}
        latest = {name: keyed.latest for name, keyed in self.keyed.items()}
        self.add(event)
        return (
            [n for n, stamp in stamps.items() if n not in self.messages or self.messages[n].stamp != stamp],
            [n for n, offset in latest.items() if n not in self.keyed or self.keyed[n].latest != offset],
        )

    def extend(self, later: Fold) -> None:
        """Append the fold of the stretch that follows, which must not be used afterwards."""
        self.supersede(later.superseded)
        for name, message in later.messages.items():
            there = self.messages.setdefault(name, message)
            if there is not message:
                there.extend(message.segments)
        for name, keyed in later.keyed.items():
            held = self.keyed.setdefault(name, keyed)
            if held is not keyed:
                held.extend(keyed)
        self.plain.extend(later.plain)
        self.next_offset = later.next_offset
        self.size += later.size

    def copy(self) -> Fold:
        """Return a copy that can change independently."""
        copied = Fold(self.first_offset, self.plain.copy(), bound=self._bound)
        copied.next_offset = self.next_offset
        copied.messages = {
            name: Message([segment.copy() for segment in message.segments], message.bound)
            for name, message in self.messages.items()
        }
        copied.keyed = {name: keyed.copy() for name, keyed in self.keyed.items()}
        copied.superseded = self.superseded.copy()
        copied.size = self.size
        return copied

    def supersede(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Remove the events at these offsets."""
        joined = _joined(ranges)
        if not joined:
            return
        if joined[0][0] < self.first_offset:
            earlier = [(first, min(last, self.first_offset - 1)) for first, last in joined if first < self.first_offset]
            self.superseded = _joined([*self.superseded, *earlier])

        def gone(offset: int) -> bool:
            at = bisect_right(joined, offset, key=_first) - 1
            return at >= 0 and joined[at][1] >= offset

        self.plain.remove(joined)
        for name, message in list(self.messages.items()):
            message.remove(gone)
            if not message.segments:
                del self.messages[name]
        for name, keyed in list(self.keyed.items()):
            keyed.remove(gone)
            if not keyed.states:
                del self.keyed[name]

    def events(self, topics: Container[str] | None = None) -> list[Event]:
        """Return the compact form, in the order of offsets.

        Args:
            topics: Only events of these topics; None for all.
        """
        found: list[Event] = []
        for name, message in self.messages.items():
            if topics is None or name[0] in topics:
                found += message.events(*name)
        for name, keyed in self.keyed.items():
            if topics is None or name[0] in topics:
                found += keyed.events(name[0], self._bound)
        found += [event for event in self.plain.events() if topics is None or event.topic in topics]
        return sorted(found, key=_offset)

    def _add_piece(self, event: Event, body: Body, piece: Piece) -> None:
        message = self.messages.get((event.topic, piece.id))
        writer = Writer(body.run, body.activity, body.attempt)
        if message is None:
            message = self.messages[event.topic, piece.id] = Message([], self._bound)
        if body.compact is not None and body.compact.parts is not None:
            message.extend([Segment.of(part) for part in body.compact.parts])
            self.size += len(event.body)
            return
        data = bytes(body.data)
        stands_for = body.compact
        last = message.add(writer, piece.op, data) if stands_for is None else None
        if last is not None:  # the common case: a token of a message that its writer continues
            last.last, last.time = event.offset, body.time
            last.events += 1
            last.complete |= piece.complete
            self.size += len(data)
            return
        change = Change()
        change.apply(piece.op, data)
        first, events = (event.offset, 1) if stands_for is None else (stands_for.first, stands_for.events)
        message.extend([Segment(writer, first, event.offset, events, body.time, piece.complete, change)])
        self.size += len(data) + 200

    def _add_state(self, event: Event, body: Body, key: str) -> None:
        keyed = self.keyed.get((event.topic, key))
        if keyed is None:
            keyed = self.keyed[event.topic, key] = Keyed()
        writer, stands_for = Writer(body.run, body.activity, body.attempt), body.compact
        self.size += len(event.body)
        if stands_for is None:
            keyed.put(writer, State(event.offset, event.offset, 1, event.body))
            return
        raw = _without_compact(event.body)
        if stands_for.parts is None:
            keyed.put(writer, State(stands_for.first, event.offset, stands_for.events, raw))
            return
        for part in stands_for.parts:
            its = raw if part.event is msgspec.UNSET else bytes(part.event).partition(b",")[2]
            who = Writer(part.run, part.activity, part.attempt)
            keyed.put(who, State(part.first, part.last, part.events, its))

    def _add_superseding(self, body: Body) -> None:
        try:
            self.supersede(decode_superseding(body.data).offsets)
        except UNDECODABLE:
            return  # an imported event may have data of another shape


def _without_compact(body: bytes) -> bytes:
    """Return an event's body as the log has it; `compact` is its last field."""
    fields = msgspec.json.decode(b"{" + body, type=dict[str, msgspec.Raw])
    return body[: -len(bytes(fields["compact"])) - len(b',"compact":}')] + b"}"


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges in order, with overlapping and adjacent ones merged."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and joined[-1][1] >= first - 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        elif first <= last:
            joined.append((first, last))
    return joined


_first = itemgetter(0)
_offset = attrgetter("offset")
