"""The state of a session, kept up to date: growing messages, keyed states and other events."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from reprlib import repr as abridged
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from wakeline.client.closing import Closing
from wakeline.client.errors import EventDataError, StreamBrokenError
from wakeline.client.sse import Frame
from wakeline.client.stream import EventStream
from wakeline.client.structs import SessionEvent
from wakeline.client.values import Values, session_event
from wakeline.client.view import OPENING, View, WireEvent, decode_event, decode_frame
from wakeline.compact.entries import Message
from wakeline.compact.fold import Fold, Superseding
from wakeline.compact.plain import PlainRanges
from wakeline.events import ATTEMPT_SUPERSEDED, COMPACT, INPUT_REQUESTED, INPUT_RESOLVED, Event

T = TypeVar("T")

_TYPED_MOST: Final = 100

Name: TypeAlias = tuple[str, str]
"""A topic, and the id of a message or the key of a state in it."""


class LiveMessage:
    """A growing message in its present state.

    Attributes:
        topic: Its topic.
        id: Its id.
    """

    __slots__ = ("_decode", "_message", "_read", "_stamp", "id", "topic")

    def __init__(self, topic: str, name: str, message: Message, decode: msgspec.json.Decoder[Any]) -> None:
        """See `LiveView.messages`."""
        self.topic = topic
        self.id = name
        self._message = message
        self._decode = decode
        self._stamp: tuple[int, int] | None = None
        self._read: Any = None

    @property
    def value(self) -> Any:
        """The whole value; None if all of it was superseded.

        It is decoded on access, so that a message that is never read costs nothing.

        Raises:
            msgspec.ValidationError: The value is not of the requested type.
        """
        stamp = self._message.stamp
        if stamp != self._stamp:
            self._read = self._decode.decode(self._message.value()) if self._message.segments else None
            self._stamp = stamp
        return self._read

    @property
    def complete(self) -> bool:
        """Whether it is complete."""
        return any(segment.complete for segment in self._message.segments)

    @property
    def counts(self) -> bool:
        """Whether it has a value; False once all of it was superseded."""
        return bool(self._message.segments)

    def __repr__(self) -> str:
        """Return the message with its value, abridged."""
        try:
            value = abridged(self.value)
        except msgspec.ValidationError:
            value = "<not of the requested type>"
        return f"LiveMessage(topic={self.topic!r}, id={self.id!r}, value={value}, complete={self.complete})"


class EventAdded(msgspec.Struct, Generic[T], frozen=True):
    """An event without message or key was added to `view.events`."""

    event: SessionEvent[T]


class MessageChanged(msgspec.Struct, frozen=True):
    """The value of a message has changed.

    Attributes:
        message: The message.
        op: The operation. A message that existed when the view began starts with `set`; if it is large, further changes
            follow, among them `ops`: a list of operations, each as `[op, data]`.
        data: The data that was appended, merged or set, as plain JSON types.
        event: The event with the operation.
    """

    message: LiveMessage
    op: str
    data: Any
    event: SessionEvent[Any]


class StateChanged(msgspec.Struct, Generic[T], frozen=True):
    """The state of a key has changed: `view.keyed[topic, key]`."""

    topic: str
    key: str
    event: SessionEvent[T]


class Superseded(msgspec.Struct, frozen=True):
    """A new attempt has superseded events of earlier attempts.

    Attributes:
        offsets: The superseded ranges, each as its first and last offset.
        events: The events that were removed from `view.events`.
        messages: The messages that have changed, or have no value any more (`message.counts` is False).
        states: The names in `view.keyed` whose event has changed or was removed.
        event: The `$attempt.superseded` event.
    """

    offsets: list[tuple[int, int]]
    events: list[SessionEvent[Any]]
    messages: list[LiveMessage]
    states: list[Name]
    event: SessionEvent[Any]


Change: TypeAlias = EventAdded[T] | MessageChanged | StateChanged[T] | Superseded


class CompactView(View):
    """A view that passes the compact form on, whenever it begins, and then the log's events."""

    bare = True

    def accept(self, frame: Frame) -> WireEvent | None:
        """Return the frame's event; `OPENING` if the compact form may begin, or begin again.

        Raises:
            StreamBrokenError: The frame is not the next one; read again from `position`.
        """
        if not frame.cursor:
            try:
                return decode_event(frame.data)
            except (msgspec.DecodeError, RecursionError) as error:
                raise StreamBrokenError(f"expected an event, got {frame.data[:80]!r}: {error}") from error
        cursor, event = decode_frame(frame)
        if event is not None and event.topic == COMPACT:
            self._at, self.position = cursor, frame.cursor
            return event
        begins = event is None and cursor.offset == 0 and (self._at is None or self._at.offset == 0)
        accepted = super().accept(frame)
        return OPENING if begins else accepted


class LiveView(AsyncIterator[Change[T]], Closing, Generic[T]):
    """The state of a session and an iterator of its changes; `Session.view` returns one.

        async with session.view(until="settled") as view:
            async for change in view:
                match change:
                    case MessageChanged(message=message):
                        show(message.id, message.value)

    The first changes are those of the session's compact form, unless the view begins later. It continues after a
    disconnect. Events of a failed attempt are removed when the next attempt begins.

    Attributes:
        messages: The growing messages, by topic and id.
        keyed: The latest event of each topic and key.
        events: All other events that were not superseded, in order.
        requests: The `$input.requested` events of the open requests for input, by their ids.
    """

    def __init__(self, stream: EventStream[Any], values: Values, type: Any) -> None:
        """See `Session.view`; the first request is sent when the first change is awaited."""
        self.messages: dict[Name, LiveMessage] = {}
        self.keyed: dict[Name, SessionEvent[T]] = {}
        self.events: list[SessionEvent[T]] = []
        self.requests: dict[str, SessionEvent[T]] = {}
        self._stream = stream
        self._values = values
        self._decode: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any if type is None else type)
        self._fold = Fold(plain=PlainRanges())
        self._opening: list[SessionEvent[Any]] | None = None
        self._waiting: deque[SessionEvent[Any]] = deque()
        self._typed: deque[SessionEvent[Any] | EventDataError] = deque()

    async def __anext__(self) -> Change[T]:
        """Return the next change, after applying it to the view.

        Raises:
            StopAsyncIteration: The session has ended, or the view was closed.
            EventDataError: An event's data is not of the requested type; the next call continues after it.
            RefusedError: The gateway refuses to serve the session.
            StreamBrokenError: The answer is not the session's event stream.
        """
        while True:
            while self._waiting:
                if not self._typed:
                    self._typed = await self._typed_of(list(islice(self._waiting, _TYPED_MOST)))
                # No `await` between taking the event out and applying it: a cancellation loses none.
                event, typed = self._waiting.popleft(), self._typed.popleft()
                change = self._apply(event, typed)
                if isinstance(typed, EventDataError):
                    raise typed
                if change is not None:
                    return change
            self._take(await anext(self._stream))

    def _take(self, event: SessionEvent[Any]) -> None:
        """Hold the events of a compact form back until it is complete; drop one that was cut short."""
        if event.topic == OPENING.topic:
            self._opening = []
        elif event.topic == COMPACT:
            self._waiting += self._opening or []
            self._opening = None
        elif not event.cursor and self._opening is not None:
            self._opening.append(event)
        else:
            self._opening = None
            self._waiting.append(event)

    async def _typed_of(self, events: list[SessionEvent[Any]]) -> deque[SessionEvent[Any] | EventDataError]:
        """Decode the data of events that are not parts of messages as the requested type."""
        own = [event for event in events if event.message is None or event.payload is not None]
        typed = iter(await self._values.events([(decode_event(event.raw), event.cursor, event.raw) for event in own]))
        return deque(event if event.message is not None and event.payload is None else next(typed) for event in events)

    def _apply(self, event: SessionEvent[Any], typed: SessionEvent[Any] | EventDataError) -> Change[T] | None:
        if event.topic == ATTEMPT_SUPERSEDED:
            return self._supersede(event)
        self._fold.add(Event(event.offset, event.topic, event.raw.partition(b",")[2]))
        if event.message is not None and event.payload is None:
            name = (event.topic, str(event.message["id"]))
            message = self.messages.get(name)
            if message is None:
                message = self.messages[name] = LiveMessage(*name, self._fold.messages[name], self._decode)
            return MessageChanged(message, str(event.message["op"]), event.data, event)
        if isinstance(typed, EventDataError):
            return None
        if event.key is not None:
            self.keyed[event.topic, event.key] = typed
            return StateChanged(event.topic, event.key, typed)
        self.events.append(typed)
        if event.topic == INPUT_REQUESTED:
            self.requests[event.data["id"]] = typed
        elif event.topic == INPUT_RESOLVED:
            self.requests.pop(event.data["request"], None)
        return EventAdded(typed)

    def _supersede(self, event: SessionEvent[Any]) -> Superseded:
        ranges = sorted(msgspec.convert(event.data, Superseding).offsets)
        changed, states = self._fold.take_back(Event(event.offset, event.topic, event.raw.partition(b",")[2]))
        messages = [self.messages[name] for name in changed]
        for name in changed:
            if name not in self._fold.messages:
                del self.messages[name]
        for name in states:
            self.keyed.pop(name, None)
            if name in self._fold.keyed:
                # The state before the superseded one is valid again; its data is decoded like any other.
                self._restore(name, event.cursor)
        removed = list(self._remove(ranges))
        return Superseded(ranges, removed, messages, states, event)

    def _restore(self, name: Name, cursor: str) -> None:
        raw = self._fold.keyed[name].events(name[0])[-1].json()
        wire = decode_event(raw)
        data: Any = None
        if wire.payload is None:
            try:
                data = self._decode.decode(wire.data)
            except msgspec.DecodeError:
                data = msgspec.json.decode(wire.data)
        self.keyed[name] = session_event(wire, data, cursor, raw)

    def _remove(self, ranges: list[tuple[int, int]]) -> Iterator[SessionEvent[T]]:
        """Remove and yield the events in these ranges."""
        for first, last in reversed(ranges):
            start = bisect_left(self.events, first, key=_offset)
            end = bisect_left(self.events, last + 1, key=_offset)
            yield from self.events[start:end]
            del self.events[start:end]

    def drop(self) -> None:
        """End the view and release its connection."""
        self._stream.drop()

    async def aclose(self) -> None:
        """End the view, see `drop`; for `contextlib.aclosing`."""
        self.drop()


def _offset(event: SessionEvent[Any]) -> int:
    return event.offset
