"""Typed topics, and messages that grow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from wakeline.errors import RequestInvalidError
from wakeline.errors.publishing import ValueRefusedError
from wakeline.events import check_key, check_topic
from wakeline.notices import read_notice
from wakeline.publisher.errors import MessageCompleteError
from wakeline.publisher.values import PAYLOAD
from wakeline.text import REPLACEMENT, split_half

if TYPE_CHECKING:
    from wakeline.publisher.intake import Intake
    from wakeline.publisher.values import Values, Written

T = TypeVar("T")
Append: TypeAlias = Literal["text", "json-merge", "list"]

_APPENDS: Final = ("text", "json-merge", "list")
_encode = msgspec.json.encode


class Topic(Generic[T]):
    """One topic of a publisher; `SessionPublisher.topic` returns one."""

    def __init__(self, intake: Intake, values: Values, name: str, *, append: Append | None, keyed: bool) -> None:
        """See `SessionPublisher.topic`."""
        if append is not None and append not in _APPENDS:
            raise RequestInvalidError(f"expected append to be one of {', '.join(_APPENDS)}, got {append!r}")
        if append is not None and keyed:
            raise RequestInvalidError("expected append or keyed, got both: a message is named by its id, not by a key")
        self.name = check_topic(name)
        self.append = append
        self.keyed = keyed
        self._intake = intake
        self._values = values
        self._head = b'{"topic":' + _encode(name)

    async def publish(self, value: T, *, key: str | None = None, notify: Mapping[str, Any] | None = None) -> None:
        """Publish a value; return when it is in the buffer, which `flush` makes durable.

        An event is not accepted if this raises.

        Args:
            value: A value that JSON can represent, a dataclass, a msgspec or pydantic model, bytes, a Temporal payload, or
                a value that the publisher's data converter accepts.
            key: The name of the state that this event updates. The compact view keeps the latest event of each key.
            notify: Notifies users who do not see the event: `title`, and `body`, `url`, `for` (a user or a list of users),
                `digest` and `critical`, if the gateway's settings have a rule for it.

        Raises:
            ValueRefusedError: No event can hold the value.
            RequestInvalidError: `key` or `notify` is invalid.
            EventTooLargeError: The value is over 1 MiB.
            PublishDroppedError: Earlier events, which are in the error, were not delivered.
            BufferFullError: The buffer has no room, and `when_full` is `error`.
        """
        later = self._values.write_later
        field, data = self._values.write(value) if later is None else await later(value)
        intake = self._intake
        if key is None and notify is None:
            if self.keyed or self.append is not None:
                self._misused()
            body = b"%b%b%b}" % (self._head, field, data)
            if not intake.try_take(body):
                await intake.take(body)
        else:
            await self._publish_named(key, notify, field, data)
        if intake.is_turn_over():
            await asyncio.sleep(0)

    def encode(self, value: T, key: str | None = None) -> bytes:
        """Return the event of a value, if no codec is configured; see `publish` for the errors."""
        if (self.keyed and key is None) or self.append is not None:
            self._misused()
        field, data = self._values.write(value)
        if key is None:
            return b"%b%b%b}" % (self._head, field, data)
        return b'%b,"key":%b%b%b}' % (self._head, _encode(check_key("key", key)), field, data)

    def message(self, id: str) -> Message[T]:
        """Return a message that grows.

        Args:
            id: Its name within the topic, 1 to 256 bytes.

        Raises:
            RequestInvalidError: The topic was made without `append`.
        """
        if self.append is None:
            raise RequestInvalidError(
                f"expected a topic made with append=…, got {self.name!r} without: pass append='text', for example"
            )
        return Message(self, self._intake, self._values, id)

    async def _publish_named(
        self, key: str | None, notify: Mapping[str, Any] | None, field: bytes, data: bytes
    ) -> None:
        if self.append is not None or (self.keyed and key is None):
            self._misused()
        head = self._head
        if key is not None:
            head = b'%b,"key":%b' % (head, _encode(check_key("key", key)))
        if notify is not None:
            head = b'%b,"notify":%b' % (head, _encode(read_notice(notify)))
        await self._intake.take(b"%b%b%b}" % (head, field, data), None if key is None else (self.name, key))

    def _misused(self) -> None:
        if self.append is not None:
            raise RequestInvalidError(
                f"expected a topic without append, got {self.name!r} with append={self.append!r}: use message(id).append(…)"
            )
        raise RequestInvalidError(f"expected a key for topic {self.name!r} with keyed=True, got none: pass key=…")


class Message(Generic[T]):
    """A message that grows, event by event; made by `Topic.message`."""

    def __init__(self, topic: Topic[T], intake: Intake, values: Values, id: str) -> None:
        """See `Topic.message`."""
        self.topic = topic
        self.id = check_key("a message's id", id)
        self.is_complete = False
        self._half = ""
        self._intake = intake
        self._values = values
        head = b'{"topic":%b,"message":{"id":%b,"op":"' % (_encode(topic.name), _encode(id))
        self._append = head + str(topic.append).encode() + b'"}'
        self._set = head + b'set","complete":true}'
        self._end = head + b'none","complete":true},"data":null}'

    async def append(self, piece: Any) -> None:
        """Append a piece; return when it is in the buffer.

        Args:
            piece: Text for a `text` topic, one item for `list`, a merge patch for `json-merge`. A text may end in half a
                surrogate pair, which is held back until the next piece brings the other half.

        Raises:
            MessageCompleteError: The message is complete.
            ValueRefusedError: The piece is of another kind. Further errors are those of `Topic.publish`.
        """
        if self.is_complete:
            self._complete()
        self.check(piece)
        if self.topic.append != "text":
            await self._put(self._append, piece)
            return
        text, before = self._joined(piece), self._half
        if text is None:
            return
        try:
            await self._put(self._append, text)
        except BaseException:
            self._hold(before)  # it was not accepted
            raise

    async def complete(self, final: Any = None) -> None:
        """Mark the message as complete; return when that is in the buffer.

        Args:
            final: The whole value, which replaces the pieces; None keeps them.

        Raises:
            MessageCompleteError: The message is complete already.
            ValueRefusedError: The value is of another kind. Further errors are those of `Topic.publish`.
        """
        if self.is_complete:
            self._complete()
        if final is None:
            await self.release()
            if not self._intake.try_take(self._end):
                await self._intake.take(self._end)
        else:
            self.check(final, whole=True)
            await self._put(self._set, final)
            self._hold("")
        self.is_complete = True

    async def release(self) -> None:
        """Publish U+FFFD for a held half of a character whose other half did not follow."""
        if self._half:
            await self._put(self._append, REPLACEMENT)
            self._hold("")

    def encode(self, piece: Any) -> bytes | None:
        """Return the event of a piece, if no codec is configured; None if all of it is held back."""
        if self.is_complete:
            self._complete()
        self.check(piece)
        text = self._joined(piece) if self.topic.append == "text" else piece
        return None if text is None else self._body(self._append, self._values.write(text))

    def _joined(self, piece: str) -> str | None:
        """Return the text that can be published now; None if only half a character is held."""
        if not self._half and not (piece and "\ud800" <= piece[-1] <= "\udbff"):
            return piece
        text, half = split_half(self._half + piece)
        self._hold(half)
        return text if text or not half else None

    def _hold(self, half: str) -> None:
        self._half = half
        if half:
            self._intake.held.add(self)
        else:
            self._intake.held.discard(self)

    def check(self, value: Any, *, whole: bool = False) -> None:
        """Check that a value is of the message's kind.

        Raises:
            ValueRefusedError: It is of another kind.
        """
        if self.topic.append == "text" and not isinstance(value, str):
            raise ValueRefusedError(
                f"expected str for topic {self.topic.name!r} with append='text', got {type(value).__name__}"
            )
        if whole and self.topic.append == "list" and not isinstance(value, (list, tuple)):
            raise ValueRefusedError(f"expected a list as the final value, got {type(value).__name__}")

    async def _put(self, head: bytes, value: Any) -> None:
        later = self._values.write_later
        body = self._body(head, self._values.write(value) if later is None else await later(value))
        if not self._intake.try_take(body):
            await self._intake.take(body)
        if self._intake.is_turn_over():
            await asyncio.sleep(0)

    def _body(self, head: bytes, written: Written) -> bytes:
        field, data = written
        if field == PAYLOAD:
            raise ValueRefusedError(
                f"expected JSON for a message of topic {self.topic.name!r}, got a payload from the data converter, which "
                "cannot be merged: use publish(…), or give the publisher data_converter=DataConverter.default"
            )
        return b"%b%b%b}" % (head, field, data)

    def _complete(self) -> None:
        raise MessageCompleteError(
            f"expected an open message, got the complete {self.id!r} of topic {self.topic.name!r}: use another id"
        )
