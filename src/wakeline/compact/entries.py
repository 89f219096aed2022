"""Messages that grow and keyed state, as a fold holds them: by who wrote what, so that it can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

import msgspec

from wakeline.compact.operations import Change, WireOp, from_wire
from wakeline.events import Event

STRETCH_BYTES: Final = 512 * 1024
"""About the most bytes of an event of the compact form, unless one published event has more."""

_PART: Final = 200  # bytes of a part beside its operations
T = TypeVar("T")


class Writer(NamedTuple):
    """Who wrote an event: what is superseded is superseded as a whole."""

    run: str | None = None
    activity: str | None = None
    attempt: int | None = None


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one writer's consecutive events say; the `parts` of PROTOCOL.md §4."""

    first: int
    last: int
    events: int
    time: str = ""
    run: str | None = None
    activity: str | None = None
    attempt: int | None = None
    complete: bool = False
    ops: list[WireOp] | None = None
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Compaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an event of the compact form stands for; its `compact` field."""

    first: int
    last: int
    events: int
    parts: list[Part] | None = None


class Segment:
    """What consecutive events of one writer do to a message.

    Attributes:
        writer: Who wrote them.
        first: Offset of the first of them.
        last: Offset of the last.
        events: How many there are.
        time: The last one's time, as JSON.
        complete: Whether one of them says that the message is complete.
        change: What they do.
    """

    __slots__ = ("change", "complete", "events", "first", "last", "time", "writer")

    def __init__(
        self, writer: Writer, first: int, last: int, events: int, time: str, complete: bool, change: Change
    ) -> None:
        self.writer = writer
        self.first = first
        self.last = last
        self.events = events
        self.time = time
        self.complete = complete
        self.change = change

    def join(self, later: Segment) -> None:
        """Append the next segment of the same writer."""
        self.change.then(later.change)
        self.last, self.time = later.last, later.time
        self.events += later.events
        self.complete |= later.complete

    def has_room(self, later: Segment, bound: int) -> bool:
        """Whether it can append the writer's next segment within a bound."""
        change = later.change
        return change.whole or change.form == "none" or self.change.has_room(change.size, bound)

    def copy(self) -> Segment:
        """One that may change by itself."""
        return Segment(self.writer, self.first, self.last, self.events, self.time, self.complete, self.change.copy())

    def part(self, *, begins: bool = False) -> Part:
        """How it is written; the one that a message begins with had nothing before it."""
        ops = (self.change.settled() if begins else self.change).wire()
        return Part(self.first, self.last, self.events, self.time, *self.writer, complete=self.complete, ops=ops)

    @classmethod
    def of(cls, part: Part) -> Segment:
        """Read one back."""
        writer = Writer(part.run, part.activity, part.attempt)
        change = from_wire(part.ops or [])
        return cls(writer, part.first, part.last, part.events, part.time, part.complete, change)


class Message:
    """A message that grows: its remaining segments, in order.

    Args:
        segments: Its segments so far.
        bound: About the most bytes of a segment, and of an event of the compact form.
    """

    __slots__ = ("bound", "segments")

    def __init__(self, segments: list[Segment], bound: int = STRETCH_BYTES) -> None:
        self.segments = segments
        self.bound = bound

    def extend(self, segments: Iterable[Segment]) -> None:
        """Append later segments; join neighbours of one writer within the bound."""
        for segment in segments:
            if not self._joins(segment):
                self.segments.append(segment)

    def add(self, writer: Writer, op: str, data: bytes) -> Segment | None:
        """Add an operation to its writer's last segment; None if that is another writer's, or full."""
        last = self.segments[-1] if self.segments else None
        if last is None or last.writer != writer or not last.change.has_room(len(data), self.bound):
            return None
        last.change.apply(op, data)
        if last.change.whole and len(self.segments) > 1:
            self._collapse()
        return self.segments[-1]

    def _joins(self, segment: Segment) -> bool:
        if not self.segments or self.segments[-1].writer != segment.writer:
            return False
        if not self.segments[-1].has_room(segment, self.bound):
            self._forget_replaced()
            if not self.segments[-1].has_room(segment, self.bound):
                return False
        self.segments[-1].join(segment)
        self._collapse()
        return True

    def _collapse(self) -> None:
        """Drop a writer's segments before a whole value of its own."""
        held = self.segments
        while len(held) > 1 and held[-1].change.whole and held[-2].writer == held[-1].writer:
            later = held.pop()
            held[-1].join(later)

    def _forget_replaced(self) -> None:
        """Drop members that the last segment replaces from its writer's earlier ones, to bound them."""
        last = self.segments[-1]
        start = len(self.segments) - 1
        while start and self.segments[start - 1].writer == last.writer:
            start -= 1
        run = self.segments[start:]
        if len(run) == 1 or last.change.form != "object":
            return
        for segment in run[:-1]:
            segment.change.forget(last.change)
        joined = run[:1]
        for segment in run[1:]:
            if joined[-1].has_room(segment, self.bound):
                joined[-1].join(segment)
            else:
                joined.append(segment)
        self.segments[start:] = joined

    def remove(self, gone: Callable[[int], bool]) -> None:
        """Take out what counts no more. A segment goes with its last event: what supersedes one event of it does all."""
        if any(gone(segment.last) for segment in self.segments):
            kept = [segment for segment in self.segments if not gone(segment.last)]
            self.segments = []
            self.extend(kept)

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one when something of it has changed."""
        return (self.segments[-1].last, sum(segment.events for segment in self.segments)) if self.segments else (-1, 0)

    def value(self) -> bytes:
        """The whole value as JSON, of a message of which something remains."""
        return _composed(self.segments, begins=True).value()

    def events(self, topic: str, name: str) -> list[Event]:
        """The event with its whole value; if that is too large, events that make it together."""
        groups = _grouped(self.segments, lambda segment: 2 * segment.change.size + _PART, self.bound)
        return [self._event(topic, name, group, begins=group is groups[0]) for group in groups]

    def _event(self, topic: str, name: str, segments: list[Segment], *, begins: bool) -> Event:
        last = segments[-1]
        events = sum(segment.events for segment in segments)
        compaction = None
        if events > 1:
            parts = [segment.part(begins=begins and segment is segments[0]) for segment in segments]
            compaction = Compaction(segments[0].first, last.last, events, parts if len(parts) > 1 else None)
        op, data = _composed(segments, begins=begins).event()
        piece: dict[str, object] = {"id": name, "op": op}
        if any(segment.complete for segment in segments):
            piece["complete"] = True
        body = b'"topic":%b,"data":%b,"time":%b' % (_encode(topic), bytes(data), _encode(last.time))
        for field, value in zip(("run", "activity", "attempt"), last.writer, strict=True):
            if value is not None:
                body += b',"%b":%b' % (field.encode(), _encode(value))
        body += b',"message":%b' % _encode(piece)
        return Event(last.last, topic, _with(body + b"}", compaction))


class State:
    """The latest of one writer's events with a key."""

    __slots__ = ("body", "events", "first", "last")

    def __init__(self, first: int, last: int, events: int, body: bytes) -> None:
        self.first = first
        self.last = last
        self.events = events
        self.body = body

    def part(self, writer: Writer) -> Part:
        """How it is written."""
        event = msgspec.Raw(b'{"offset":%d,%b' % (self.last, self.body))
        return Part(self.first, self.last, self.events, "", *writer, event=event)


class Keyed:
    """What the events with one key say: the latest of each writer, and which of them is the latest of all."""

    __slots__ = ("states",)

    def __init__(self) -> None:
        self.states: dict[Writer, State] = {}

    @property
    def latest(self) -> int:
        """Where the latest stands."""
        return next(reversed(self.states.values())).last

    def put(self, writer: Writer, state: State) -> None:
        """A later one takes the place of the writer's earlier one."""
        earlier = self.states.pop(writer, None)
        if earlier is not None:
            state = State(min(earlier.first, state.first), state.last, earlier.events + state.events, state.body)
        self.states[writer] = state  # the latest stands last

    def extend(self, later: Keyed) -> None:
        """Take in later ones."""
        for writer, state in later.states.items():
            self.put(writer, state)

    def copy(self) -> Keyed:
        """One that may change by itself."""
        copied = Keyed()
        copied.states = self.states.copy()
        return copied

    def remove(self, gone: Callable[[int], bool]) -> None:
        """Take out what counts no more."""
        self.states = {writer: state for writer, state in self.states.items() if not gone(state.last)}

    def events(self, topic: str, bound: int = STRETCH_BYTES) -> list[Event]:
        """Return the latest event with older ones as `parts`; those that are too large precede it."""
        groups = _grouped(list(self.states.items()), lambda item: len(item[1].body) + _PART, bound)
        return [self._event(topic, group) for group in groups]

    def _event(self, topic: str, states: list[tuple[Writer, State]]) -> Event:
        *older, (writer, latest) = states
        parts = [state.part(writer) for writer, state in older]
        events = sum(state.events for _, state in states)
        if events == 1:
            return Event(latest.last, topic, latest.body)
        if parts:
            parts.append(Part(latest.first, latest.last, latest.events, "", *writer))
        first = min(state.first for _, state in states)
        return Event(latest.last, topic, _with(latest.body, Compaction(first, latest.last, events, parts or None)))


def _grouped(items: list[T], size: Callable[[T], int], bound: int) -> list[list[T]]:
    """Group neighbours within a bound."""
    groups: list[list[T]] = []
    total = 0
    for item in items:
        its = size(item)
        if groups and total + its <= bound:
            groups[-1].append(item)
            total += its
        else:
            groups.append([item])
            total = its
    return groups


def _composed(segments: list[Segment], *, begins: bool) -> Change:
    """What segments do one after the other; a message's first ones make a whole value."""
    change = segments[0].change.settled() if begins else segments[0].change
    if len(segments) > 1:
        change = change.copy()
        for segment in segments[1:]:
            change.then(segment.change)
    return change


def _with(body: bytes, compaction: Compaction | None) -> bytes:
    return body if compaction is None else b'%b,"compact":%b}' % (body[:-1], _encode(compaction))


_encode = msgspec.json.encode
