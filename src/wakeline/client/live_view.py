"""What a session is, kept up to date: messages that grow, keyed state, and the events that count."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

import msgspec

from wakeline.client.errors import EventDataError, StreamBrokenError
from wakeline.client.sse import Frame
from wakeline.client.stream import EventStream
from wakeline.client.structs import SessionEvent
from wakeline.client.values import Values
from wakeline.client.view import OPENING, View, WireEvent, decode_event, decode_frame
from wakeline.compact import Fold
from wakeline.compact.entries import Message
from wakeline.compact.plain import PlainRanges
from wakeline.events import ATTEMPT_SUPERSEDED, COMPACT, Event

T = TypeVar("T")

_TYPED_MOST: Final = 100

Name: TypeAlias = tuple[str, str]
"""A topic, and the id of a message or the key of a state in it."""


class LiveMessage:
    """A message that grows, as it is now.

    Attributes:
        topic: Its topic.
        id: Its id.
    """

    __slots__ = ("_decode", "_message", "_read", "_stamp", "id", "topic")

    def __init__(self, topic: str, name: str, message: Message, decode: msgspec.json.Decoder[Any]) -> None:
        """Made by a `LiveView`."""
        self.topic = topic
        self.id = name
        self._message = message
        self._decode = decode
        self._stamp: tuple[int, int] | None = None
        self._read: Any = None

    @property
    def value(self) -> Any:
        """Its whole value: read when it is asked for, so that a message costs nothing while nobody looks.

        Raises:
            msgspec.ValidationError: It is not of the type that was asked for.
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
        """Whether anything of it counts: False when all of it was superseded."""
        return bool(self._message.segments)


class EventAdded(msgspec.Struct, Generic[T], frozen=True):
    """An event that stands for itself was added to `view.events`."""

    event: SessionEvent[T]


class MessageChanged(msgspec.Struct, frozen=True):
    """A message has another value.

    Attributes:
        message: The message.
        op: How it was changed; `set` for one that was there when the view began, and if that is large, more changes after
            it, among them `ops`: several one after the other, each as `[op, data]`.
        data: What was appended, merged or set, as JSON says it.
        event: The event that did it.
    """

    message: LiveMessage
    op: str
    data: Any
    event: SessionEvent[Any]


class StateChanged(msgspec.Struct, Generic[T], frozen=True):
    """A topic's state under a key is another one now: `view.keyed[topic, key]`."""

    topic: str
    key: str
    event: SessionEvent[T]


class Superseded(msgspec.Struct, frozen=True):
    """An attempt began, and what earlier ones published counts no more.

    Attributes:
        offsets: First and last offset of what it was.
        events: The events that were taken out of `view.events`.
        messages: The messages that have another value now, or none: `message.counts` tells.
        states: The names in `view.keyed` that have another event now, or none.
    """

    offsets: list[tuple[int, int]]
    events: list[SessionEvent[Any]]
    messages: list[LiveMessage]
    states: list[Name]


Change: TypeAlias = EventAdded[T] | MessageChanged | StateChanged[T] | Superseded


class _Offsets(msgspec.Struct):
    offsets: list[tuple[int, int]]


class CompactView(View):
    """Lets the compact form through, each time it begins, and then the log as any other view does."""

    bare = True

    def accept(self, frame: Frame) -> WireEvent | None:
        """The frame's event; `OPENING` where the compact form may begin, anew or for the first time.

        Raises:
            StreamBrokenError: The frame cannot come here; ask again from `position`.
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
        told = super().accept(frame)
        return OPENING if begins else told


class LiveView(AsyncIterator[Change[T]], Generic[T]):
    """What a session is, and each change of it; `Session.view` makes one.

        async with session.view(until="settled") as view:
            async for change in view:
                match change:
                    case MessageChanged(message=message):
                        show(message.id, message.value)

    It begins with the session's compact form, whose changes come first, and goes on through any disconnect. What an
    attempt that failed has published is taken out when the next one begins.

    Attributes:
        messages: The messages that grow, by topic and id.
        keyed: The latest event of each topic and key.
        events: Every other event that counts, in order.
    """

    def __init__(self, stream: EventStream[Any], values: Values, type: Any) -> None:
        """Nothing is asked before the first change is awaited; see `Session.view`."""
        self.messages: dict[Name, LiveMessage] = {}
        self.keyed: dict[Name, SessionEvent[T]] = {}
        self.events: list[SessionEvent[T]] = []
        self._stream = stream
        self._values = values
        self._decode: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any if type is None else type)
        self._fold = Fold(plain=PlainRanges())
        self._opening: list[SessionEvent[Any]] | None = None
        self._waiting: deque[SessionEvent[Any]] = deque()
        self._typed: deque[SessionEvent[Any] | EventDataError] = deque()

    def __aiter__(self) -> Self:
        """It is its own iterator."""
        return self

    async def __anext__(self) -> Change[T]:
        """The next change.

        Raises:
            StopAsyncIteration: Nothing more will come.
            EventDataError: An event's data is not what was asked for; it is passed over, and the next call goes on.
            RefusedError: The gateway refuses, for good.
            StreamBrokenError: What comes cannot be the session.
        """
        while True:
            while self._waiting:
                if not self._typed:
                    self._typed = await self._typed_of(list(islice(self._waiting, _TYPED_MOST)))
                # It leaves before it counts: nothing is awaited between that and its change.
                event, typed = self._waiting.popleft(), self._typed.popleft()
                change = self._apply(event, typed)
                if isinstance(typed, EventDataError):
                    raise typed
                if change is not None:
                    return change
            self._take(await anext(self._stream))

    def _take(self, event: SessionEvent[Any]) -> None:
        """Hold the compact form back until it is whole: one that was cut short is none."""
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
        """The events with their data as it was asked for, where they stand for themselves."""
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
        return EventAdded(typed)

    def _supersede(self, event: SessionEvent[Any]) -> Superseded:
        ranges = sorted(msgspec.convert(event.data, _Offsets).offsets)
        stamps = {name: message.stamp for name, message in self._fold.messages.items()}
        latest = {name: keyed.latest for name, keyed in self._fold.keyed.items()}
        self._fold.add(Event(event.offset, event.topic, event.raw.partition(b",")[2]))
        changed = [
            name
            for name, stamp in stamps.items()
            if name not in self._fold.messages or self._fold.messages[name].stamp != stamp
        ]
        messages = [self.messages[name] for name in changed]
        for name in changed:
            if name not in self._fold.messages:
                del self.messages[name]
        states = [
            name
            for name, offset in latest.items()
            if name not in self._fold.keyed or self._fold.keyed[name].latest != offset
        ]
        for name in states:
            self.keyed.pop(name, None)
            if name in self._fold.keyed:
                # What was there before is there again; it is typed like any other when it is given out.
                self._restore(name, event.cursor)
        removed = list(self._remove(ranges))
        return Superseded(ranges, removed, messages, states)

    def _restore(self, name: Name, cursor: str) -> None:
        raw = self._fold.keyed[name].events(name[0])[-1].json()
        wire = decode_event(raw)
        data: Any = None
        if wire.payload is None:
            try:
                data = self._decode.decode(wire.data)
            except msgspec.DecodeError:
                data = msgspec.json.decode(wire.data)
        self.keyed[name] = SessionEvent(
            offset=wire.offset,
            topic=wire.topic,
            data=data,
            time=wire.time,
            cursor=cursor,
            raw=raw,
            payload=wire.payload,
            run=wire.run,
            activity=wire.activity,
            attempt=wire.attempt,
            key=wire.key,
        )

    def _remove(self, ranges: list[tuple[int, int]]) -> Iterator[SessionEvent[T]]:
        """Take the events at these offsets out."""
        for first, last in reversed(ranges):
            start = bisect_left(self.events, first, key=_offset)
            end = bisect_left(self.events, last + 1, key=_offset)
            yield from self.events[start:end]
            del self.events[start:end]

    def drop(self) -> None:
        """End it, and give the connection back."""
        self._stream.drop()

    async def aclose(self) -> None:
        """The same, for `aclosing` and its like."""
        self.drop()

    async def __aenter__(self) -> Self:
        """Nothing: the connection is made when the first change is awaited."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()


def _offset(event: SessionEvent[Any]) -> int:
    return event.offset
