"""Messages that grow and keyed state, by writer, so that a writer's output can be removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

import msgspec

from wakeline.compact.operations import Change, WireOp, from_wire
from wakeline.events import Event

STRETCH_BYTES: Final = 512 * 1024
"""Approximate limit on the bytes of an event of the compact form; one published event may have more."""

_PART: Final = 200  # bytes of a part beside its operations
T = TypeVar("T")


class Writer(NamedTuple):
    """The source of an event; everything that it wrote is superseded together."""

    run: str | None = None
    activity: str | None = None
    attempt: int | None = None


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """Consecutive events of one writer; the `parts` of PROTOCOL.md §4."""

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
    """The events that an event of the compact form represents; its `compact` field."""

    first: int
    last: int
    events: int
    parts: list[Part] | None = None


class Segment:
    """The combined effect of consecutive events of one writer on a message.

    Attributes:
        writer: Their writer.
        first: Offset of the first event.
        last: Offset of the last event.
        events: Number of events.
        time: The last event's time, RFC 3339.
        complete: Whether one of them marks the message as complete.
        change: Their combined change of the value.
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
        """Return whether the writer's next segment can be appended within a bound."""
        change = later.change
        return change.whole or change.form == "none" or self.change.has_room(change.size, bound)

    def copy(self) -> Segment:
        """Return a copy that can change independently."""
        return Segment(self.writer, self.first, self.last, self.events, self.time, self.complete, self.change.copy())

    def part(self, *, begins: bool = False) -> Part:
        """Return the segment as a part.

        Args:
            begins: It is the first of its message, so the value before it is empty.
        """
        ops = (self.change.settled() if begins else self.change).wire()
        return Part(self.first, self.last, self.events, self.time, *self.writer, complete=self.complete, ops=ops)

    @classmethod
    def of(cls, part: Part) -> Segment:
        """Return the segment that a part describes."""
        writer = Writer(part.run, part.activity, part.attempt)
        change = from_wire(part.ops or [])
        return cls(writer, part.first, part.last, part.events, part.time, part.complete, change)


class Message:
    """A message that grows: its remaining segments, in order.

    Args:
        segments: Its segments so far.
        bound: Approximate limit on the bytes of a segment, and of an event of the compact form.
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
        """Add an operation to its writer's last segment, and return that segment.

        Returns:
            None if the last segment belongs to another writer or is full; the operation has then not been added.
        """
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
        """Drop a writer's segments that its own later whole value replaces."""
        held = self.segments
        while len(held) > 1 and held[-1].change.whole and held[-2].writer == held[-1].writer:
            later = held.pop()
            held[-1].join(later)

    def _forget_replaced(self) -> None:
        """Shrink a writer's earlier segments by the members that its last one replaces."""
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
        """Remove superseded segments.

        Superseding covers all events of an attempt, so a segment is removed exactly if its last event is superseded.
        """
        if any(gone(segment.last) for segment in self.segments):
            kept = [segment for segment in self.segments if not gone(segment.last)]
            self.segments = []
            self.extend(kept)

    @property
    def stamp(self) -> tuple[int, int]:
        """A value that differs whenever the message has changed."""
        return (self.segments[-1].last, sum(segment.events for segment in self.segments)) if self.segments else (-1, 0)

    def value(self) -> bytes:
        """Return the whole value as JSON; the message must have a segment."""
        return _composed(self.segments, begins=True).value()

    def events(self, topic: str, name: str) -> list[Event]:
        """Return the event with the whole value; if it is too large, several events."""
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
    """The latest event of one writer with a key."""

    __slots__ = ("body", "events", "first", "last")

    def __init__(self, first: int, last: int, events: int, body: bytes) -> None:
        self.first = first
        self.last = last
        self.events = events
        self.body = body

    def part(self, writer: Writer) -> Part:
        """Return the event as a part."""
        event = msgspec.Raw(b'{"offset":%d,%b' % (self.last, self.body))
        return Part(self.first, self.last, self.events, "", *writer, event=event)


class Keyed:
    """The state under one key: the latest event of each writer, the latest of all last."""

    __slots__ = ("states",)

    def __init__(self) -> None:
        self.states: dict[Writer, State] = {}

    @property
    def latest(self) -> int:
        """Offset of the latest event."""
        return next(reversed(self.states.values())).last

    def put(self, writer: Writer, state: State) -> None:
        """Add a later event, which replaces the writer's earlier one."""
        earlier = self.states.pop(writer, None)
        if earlier is not None:
            state = State(min(earlier.first, state.first), state.last, earlier.events + state.events, state.body)
        self.states[writer] = state  # the latest stands last

    def extend(self, later: Keyed) -> None:
        """Add later events."""
        for writer, state in later.states.items():
            self.put(writer, state)

    def copy(self) -> Keyed:
        """Return a copy that can change independently."""
        copied = Keyed()
        copied.states = self.states.copy()
        return copied

    def remove(self, gone: Callable[[int], bool]) -> None:
        """Remove superseded events."""
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
    """Combine consecutive segments; if they begin a message, the result is a whole value."""
    change = segments[0].change.settled() if begins else segments[0].change
    if len(segments) > 1:
        change = change.copy()
        for segment in segments[1:]:
            change.then(segment.change)
    return change


def _with(body: bytes, compaction: Compaction | None) -> bytes:
    return body if compaction is None else b'%b,"compact":%b}' % (body[:-1], _encode(compaction))


_encode = msgspec.json.encode
