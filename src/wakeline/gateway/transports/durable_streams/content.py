"""The content of a stream: converts bodies to events and events to bodies.

A message is the `data` of one event. In an `application/json` stream it is the posted JSON; in a `text/*` stream it is a
string; in any other stream it is a `payload` with the encoding `binary/plain`, as Temporal encodes bytes. So every other
reader of the session receives a form that it knows.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from wakeline.errors import EventTooLargeError, OffsetGoneError
from wakeline.events import SESSION_CLOSED, Event, NewEvent, compose
from wakeline.gateway.delivery import RetentionGap, check_array
from wakeline.gateway.runtime import read_whole_in_slices
from wakeline.gateway.transports.durable_streams import offsets
from wakeline.gateway.transports.durable_streams.headers import media_type
from wakeline.gateway.transports.durable_streams.refusals import StreamBodyInvalidError

TOPIC: Final = "message"
"""The topic of posted messages."""

JSON: Final = "application/json"

Form: TypeAlias = Literal["json", "text", "bytes"]

_BINARY: Final = b64encode(b"binary/plain")
_LINE_BREAK: Final = re.compile(rb"\r\n|\n|\r")  # each ends a line of an event stream


class _Payload(msgspec.Struct):
    data: bytes = b""


class _Held(msgspec.Struct):
    """The fields of an event that a message consists of; `data` and `payload` stay encoded."""

    data: msgspec.Raw = msgspec.Raw(b"")
    payload: msgspec.Raw = msgspec.Raw(b"")


_message = msgspec.json.Decoder(msgspec.Raw)
_messages = msgspec.json.Decoder(list[msgspec.Raw])
_held = msgspec.json.Decoder(_Held)
_payload = msgspec.json.Decoder(_Payload)
_text = msgspec.json.Decoder(str)


class Content(msgspec.Struct, frozen=True):
    """A stream's content type, which determines the form of its messages.

    Attributes:
        type: The content type as given.
        whole: Whether a message is a whole event (PROTOCOL.md §2). This holds for sessions that were not created by this
            protocol, whose topics, times and runs would otherwise be lost.
    """

    type: str
    whole: bool = False

    @classmethod
    def of(cls, configured: str | None) -> Content:
        """Return the content of a session with this configured type; None for other sessions."""
        return cls(JSON, whole=True) if configured is None else cls(configured)

    @property
    def form(self) -> Form:
        """The form of messages and bodies."""
        media = media_type(self.type)
        if media == JSON:
            return "json"
        return "text" if media.startswith("text/") else "bytes"

    def agrees(self, content_type: str) -> bool:
        """Return whether content of this type belongs in the stream."""
        return media_type(content_type) == media_type(self.type)

    async def events(self, body: bytes, *, time: str, most: int, most_events: int) -> tuple[NewEvent, ...]:
        """Return a posted body as events.

        Args:
            body: The body.
            time: The time of the post.
            most: The most bytes of one event's data. A longer JSON message is refused; longer text or bytes become
                several events.
            most_events: The most messages.

        Raises:
            StreamBodyInvalidError: The body of a JSON stream is not JSON.
            EventTooLargeError: A message is over the limit.
            BatchTooLargeError: There are too many messages.
        """
        form = self.form
        if form == "json":
            return tuple(
                [compose(TOPIC, _within(message, most), time=time) for message in await _split(body, most_events)]
            )
        pieces = _pieces(body, most * 3 // 4, whole_characters=form == "text")
        return tuple([_bytes_event(piece, time, most, as_text=form == "text") for piece in pieces])

    def body(self, events: Sequence[Event]) -> bytes:
        """Return events as the body of an answer.

        Raises:
            OffsetGoneError: Retention has deleted some of them.
        """
        if self.form == "json":
            return b"[%b]" % b",".join(self._messages(events))
        return b"".join(self._bytes(events))

    def sse(self, epoch: str, events: Sequence[Event]) -> bytes:
        """Return events as one `data` event of an event stream; empty if none of them is a message.

        Raises:
            OffsetGoneError: Retention has deleted some of them.
        """
        shown = list(self._shown(events))
        if not shown:
            return b""
        match self.form:
            case "json":
                lines = [self.body(shown)]
            case "text":
                lines = _LINE_BREAK.split(self.body(shown))
            case "bytes":
                lines = [b64encode(self.body(shown))]
        # Parsers of event streams drop one space after the colon.
        data = b"".join([b"data: %b\n" % line if line[:1] == b" " else b"data:%b\n" % line for line in lines])
        # `id:` after `data:`, because some parsers read the line after `event:` as the data.
        return b"event: data\n%bid:%b\n\n" % (data, offsets.written(epoch, events[-1].offset + 1).encode())

    def _shown(self, events: Sequence[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, RetentionGap):
                raise OffsetGoneError(f"the events up to offset {event.offset} are no longer kept")
            if self.whole or not event.topic.startswith("$"):
                yield event

    def _messages(self, events: Sequence[Event]) -> list[bytes]:
        if self.whole:
            return [event.json() for event in self._shown(events)]
        held = [_held.decode(b"{" + event.body) for event in self._shown(events)]
        return [bytes(event.data or event.payload) for event in held]

    def _bytes(self, events: Sequence[Event]) -> list[bytes]:
        return [_bytes_of(_held.decode(b"{" + event.body)) for event in self._shown(events)]


def closed_event(time: str) -> NewEvent:
    """Return the last event of a session that is closed."""
    return compose(SESSION_CLOSED, b"{}", time=time)


async def _split(body: bytes, most: int) -> list[bytes]:
    """Return a JSON body as messages: the elements of an array, or a single value."""
    check_array(body, most)
    try:
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            return [bytes(message) for message in await read_whole_in_slices(_messages.decode, body)]
        return [bytes(await read_whole_in_slices(_message.decode, body))]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StreamBodyInvalidError(f"expected JSON, got: {error}") from None


def _within(message: bytes, most: int) -> bytes:
    if len(message) > most:
        raise EventTooLargeError(f"expected at most {most} bytes of a message, got {len(message)}")
    return message


def _pieces(body: bytes, size: int, *, whole_characters: bool) -> Iterator[bytes]:
    """Split a body into pieces of about a size; text is not split within a character."""
    start = 0
    while start < len(body):
        end = start + size
        if whole_characters:
            while end < len(body) and body[end] & 0xC0 == 0x80 and end > start + size - 4:
                end -= 1
        yield body[start:end]
        start = end


def _bytes_event(piece: bytes, time: str, most: int, *, as_text: bool) -> NewEvent:
    if as_text:
        try:
            data = msgspec.json.encode(piece.decode())
        except UnicodeDecodeError:
            data = b""
        # Bytes that are no text, or that exceed the limit as JSON text, become a payload.
        if data and len(data) <= most:
            return compose(TOPIC, data, time=time)
    payload = b'{"metadata":{"encoding":"%b"},"data":"%b"}' % (_BINARY, b64encode(piece))
    return compose(TOPIC, payload, time=time, payload=True)


def _bytes_of(held: _Held) -> bytes:
    """Return the bytes of an event; for an event of a publisher, its text or its JSON."""
    if held.payload:
        return _payload.decode(held.payload).data
    data = bytes(held.data)
    return _text.decode(data).encode() if data[:1] == b'"' else data
