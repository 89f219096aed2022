"""Messages that grow and keyed state, as a fold holds them: by who wrote what, so that it can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from wakeline.compact.operations import Change, WireOp, from_wire
from wakeline.events import Event


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
        """Take in what the same writer did next."""
        self.change.then(later.change)
        self.last, self.time = later.last, later.time
        self.events += later.events
        self.complete |= later.complete

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
    """A message that grows: what remains of it, in order."""

    __slots__ = ("segments",)

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = segments

    def extend(self, segments: list[Segment]) -> None:
        """Put later ones at its end; neighbours of one writer are one."""
        for segment in segments:
            if self.segments and self.segments[-1].writer == segment.writer:
                self.segments[-1].join(segment)
            else:
                self.segments.append(segment)

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
        change = self.segments[0].change.settled()
        if len(self.segments) > 1:
            change = change.copy()
            for segment in self.segments[1:]:
                change.then(segment.change)
        return change.value()

    def event(self, topic: str, name: str) -> Event:
        """The event with its whole value."""
        segments = self.segments
        last = segments[-1]
        events = sum(segment.events for segment in segments)
        compaction = None
        if events > 1:
            parts = [segment.part(begins=segment is segments[0]) for segment in segments] if len(segments) > 1 else None
            compaction = Compaction(segments[0].first, last.last, events, parts)
        piece: dict[str, object] = {"id": name, "op": "set"}
        if any(segment.complete for segment in segments):
            piece["complete"] = True
        body = b'"topic":%b,"data":%b,"time":%b' % (_encode(topic), self.value(), _encode(last.time))
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

    def event(self, topic: str) -> Event:
        """The latest, with what would take its place if it were superseded."""
        *older, (writer, latest) = self.states.items()
        parts = [state.part(writer) for writer, state in older]
        events = sum(state.events for state in self.states.values())
        if events == 1:
            return Event(latest.last, topic, latest.body)
        if parts:
            parts.append(Part(latest.first, latest.last, latest.events, "", *writer))
        first = min(state.first for state in self.states.values())
        return Event(latest.last, topic, _with(latest.body, Compaction(first, latest.last, events, parts or None)))


def _with(body: bytes, compaction: Compaction | None) -> bytes:
    return body if compaction is None else b'%b,"compact":%b}' % (body[:-1], _encode(compaction))


_encode = msgspec.json.encode
