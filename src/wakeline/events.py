"""Events: their fields, limits and encoding. No other file knows the fields of an event."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from time import time_ns
from typing import Final, Literal

import msgspec

from wakeline.errors import (
    BodyInvalidError,
    CursorAheadError,
    CursorInvalidError,
    EpochChangedError,
    RequestInvalidError,
    SessionNameInvalidError,
    TopicInvalidError,
)

MAX_SESSION_BYTES: Final = 512
MAX_TOPIC_BYTES: Final = 256
MAX_KEY_BYTES: Final = 256
MAX_LABEL_BYTES: Final = 1000
"""The limit on a run's or an activity's id, which is Temporal's own."""
MAX_DEPTH: Final = 128
"""The most nested arrays and objects in an event's data; every JSON parser can read that."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""The characters that no name and no topic has."""
_CURSOR = re.compile(r"([a-z2-7]{10})-(0|[1-9][0-9]{0,17})")
_LONGEST_ID: Final = 180
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one level down, one level up
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))
_encode = msgspec.json.encode
_time = msgspec.json.Decoder(datetime)
_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


# Topics that Wakeline itself writes; PROTOCOL.md §2 defines what each carries.
RUN_STARTED: Final = "$run.started"
RUN_CONTINUED: Final = "$run.continued"
RUN_CLOSED: Final = "$run.closed"
RUN_DRAINED: Final = "$run.drained"
RUN_WAITING: Final = "$run.waiting"
ACTIVITY_RETRYING: Final = "$activity.retrying"
ACTIVITY_PAUSED: Final = "$activity.paused"
ACTIVITY_STALLED: Final = "$activity.stalled"
INPUT_ACCEPTED: Final = "$input.accepted"
INPUT_COMPLETED: Final = "$input.completed"
INPUT_REJECTED: Final = "$input.rejected"
INPUT_UNDONE: Final = "$input.undone"
INPUT_REQUESTED: Final = "$input.requested"
INPUT_CLAIMED: Final = "$input.claimed"
INPUT_ANSWERED: Final = "$input.answered"
INPUT_RESOLVED: Final = "$input.resolved"
CHANNEL_DISABLED: Final = "$channel.disabled"
CHANNEL_ENABLED: Final = "$channel.enabled"
ATTEMPT_SUPERSEDED: Final = "$attempt.superseded"
SESSION_SETTLED: Final = "$session.settled"
SESSION_CLOSED: Final = "$session.closed"
GAP: Final = "$gap"
COMPACT: Final = "$compact"

IDENTITY_KEY: Final = "wakeline"
"""Key in a payload's metadata of the event's publisher, if it took the detour through the workflow (PROTOCOL.md §3)."""


class MessagePiece(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """An event's part in a message that grows; PROTOCOL.md §2 defines the effect of each `op`.

    Attributes:
        id: Names the message within its topic, 1 to 256 bytes.
        op: How the event's data changes the message's value.
        complete: Whether the event completes the message.
    """

    id: str
    op: Literal["text", "list", "json-merge", "set", "none"]
    complete: bool = False


class WirePayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Temporal payload in its JSON form, with all bytes in base64."""

    metadata: dict[str, bytes] = {}
    data: bytes = b""


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event before it is in the log: everything but its offset.

    Attributes:
        topic: The topic that it is published under.
        body: Its JSON object after `{"offset":N,`, UTF-8, on one line. It is composed once, when the event is accepted, and
            then only copied, so that every device receives the same bytes.
        time: The time of its acceptance, which `body` contains, too.
    """

    topic: str
    body: bytes
    time: str


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event in the log."""

    offset: int
    topic: str
    body: bytes

    def json(self) -> bytes:
        """Return the event's JSON object as devices receive it."""
        return b'{"offset":%d,%b' % (self.offset, self.body)


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """A position in a session: the next offset, in one epoch of the session."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @staticmethod
    def is_one(text: str) -> bool:
        """Return whether a text has the form of a cursor."""
        return _CURSOR.fullmatch(text) is not None

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that a text represents.

        Raises:
            CursorInvalidError: `text` is not a cursor.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise CursorInvalidError(f"expected a cursor such as k3v7x2abqm-18, got {text[:64]!r}")
        return cls(match[1], int(match[2]))

    def offset_in(self, epoch: str, next_offset: int) -> int:
        """Return the offset to read from in a session that is now at `next_offset` in `epoch`.

        Raises:
            EpochChangedError: The cursor belongs to another epoch of the session.
            CursorAheadError: The cursor is past the session's end.
        """
        if self.epoch != epoch:
            raise EpochChangedError(f"expected a cursor of the session's epoch {epoch}, got one of epoch {self.epoch}")
        if self.offset > next_offset:
            raise CursorAheadError(f"expected a cursor up to the session's end {next_offset}, got offset {self.offset}")
        return self.offset


def compose(
    topic: str,
    data: bytes,
    *,
    time: str,
    payload: bool = False,
    run: str | None = None,
    activity: str | None = None,
    attempt: int | None = None,
    key: str | None = None,
    message: MessagePiece | None = None,
) -> NewEvent:
    """Return an event with its body encoded.

    Args:
        topic: The topic that it is published under.
        data: Valid JSON in UTF-8; line breaks between tokens are removed, since an SSE field is one line.
        time: RFC 3339, from `timestamp()`.
        payload: `data` is a Temporal payload in its JSON form, not the published value itself.
        run: First execution run id of the workflow's chain.
        activity: Activity id.
        attempt: The activity's attempt.
        key: Names the state of which the event is the latest value.
        message: Its part in a message that grows.

    Raises:
        BodyInvalidError: `data` is not valid UTF-8, or nests too deep.
    """
    before, after = enclose(topic, payload=payload, run=run, activity=activity, attempt=attempt)
    body = b'%b%b,"time":"%b"%b' % (before, check_data(data), time.encode(), after)
    if key is not None:
        body = b'%b,"key":%b}' % (body[:-1], _encode(key))
    if message is not None:
        body = b'%b,"message":%b}' % (body[:-1], _encode(message))
    return NewEvent(topic, body, time)


def enclose(
    topic: str,
    *,
    payload: bool = False,
    run: str | None = None,
    activity: str | None = None,
    attempt: int | None = None,
) -> tuple[bytes, bytes]:
    """Return what stands before the data and after the time in an event's body; see `compose`."""
    before = b'"topic":%b,"%b":' % (_encode(topic), b"payload" if payload else b"data")
    after = b""
    if run is not None:
        after += b',"run":%b' % _encode(run)
    if activity is not None:
        after += b',"activity":%b' % _encode(activity)
    if attempt is not None:
        after += b',"attempt":%d' % attempt
    return before, after + b"}"


def check_data(data: bytes) -> bytes:
    """Return valid JSON as an event may have it: in UTF-8, on one line.

    Raises:
        BodyInvalidError: It is not valid UTF-8, or nests too deep.
    """
    if nests_too_deep(data):
        raise BodyInvalidError(
            f"expected data of at most {MAX_DEPTH} levels of arrays and objects, got more",
            hint="Flatten the value, or publish it as a string of JSON.",
        )
    if b"\n" in data or b"\r" in data:
        # This affects only breaks between tokens, because valid JSON has them escaped within strings.
        data = data.translate(None, b"\r\n")
    if not data.isascii():
        _check_utf8(data)
    return data


def nests_too_deep(data: bytes) -> bool:
    """Return whether valid JSON nests deeper than `MAX_DEPTH`."""
    if len(data) <= MAX_DEPTH or data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    steps = _STRING.sub(b"", data).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH


def check_fields(
    data: bytes,
    *,
    payload: bool,
    run: str | None,
    activity: str | None,
    key: str | None,
    message: MessagePiece | None,
) -> None:
    """Check that an event may have these fields, however it was published.

    Raises:
        RequestInvalidError: A text is too long, or not UTF-8.
        BodyInvalidError: Two fields exclude each other, or `data` does not fit the message's `op`.
    """
    check_label("run", run)
    check_label("activity", activity)
    if key is not None:
        check_key("key", key)
    if message is None:
        return
    check_key("message.id", message.id)
    if key is not None:
        raise BodyInvalidError("expected key or message, got both: a message is named by its id")
    if payload:
        raise BodyInvalidError("expected data in a message that grows, got a payload: it could not be merged")
    if message.op == "text" and data[:1] != b'"':
        raise BodyInvalidError(f"expected a string as data of op text, got {data[:40]!r}")


def timestamp(moment: datetime | float | None = None) -> str:
    """Return `moment` (a number is Unix time), or now, as RFC 3339 in UTC with milliseconds."""
    if moment is None:
        return _timestamp(time_ns() // 1_000_000)
    moment = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime | None:
    """Return the time that RFC 3339 represents, aware or not; None for another text."""
    try:
        return _time.decode(_encode(text))
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


@lru_cache(maxsize=1)  # many events share a millisecond, and formatting is slow
def _timestamp(unix_milliseconds: int) -> str:
    return timestamp(_UNIX + unix_milliseconds * _MILLISECOND)


def milliseconds(moment: datetime) -> int:
    """Return a time as Unix time in milliseconds, rounded up."""
    return -((_UNIX - moment) // _MILLISECOND)


def publisher_of_activity(run_id: str, activity: str) -> str:
    """Return the name of an activity's publisher, which is unique.

    The run id is part of it, because the ids of activities count from 1 in every run. Ids may have any characters, but
    a publisher's name is short and printable ASCII.
    """
    if not (activity.isascii() and activity.isprintable() and len(activity) <= _LONGEST_ID):
        activity = sha256(activity.encode()).hexdigest()
    return f"{run_id}:{activity}"


def check_session_name(name: str) -> str:
    """Return `name` if it is a valid name of a session.

    Raises:
        SessionNameInvalidError: It is empty, over 512 bytes, not UTF-8, or has control characters.
    """
    size = _utf8_size(name)
    if size is None or not 1 <= size <= MAX_SESSION_BYTES:
        raise SessionNameInvalidError(f"expected a name of 1 to {MAX_SESSION_BYTES} bytes, got {_shown(name, size)}")
    if CONTROL.search(name):
        raise SessionNameInvalidError(f"expected a name without control characters, got {name[:64]!r}")
    return name


def check_topic(topic: str, *, own: bool = False) -> str:
    """Return `topic` if events may be published under it.

    Args:
        topic: The topic.
        own: Wakeline itself publishes, so `$…` is allowed.

    Raises:
        TopicInvalidError: It is empty, over 256 bytes, reserved, or has characters that a topic cannot have.
    """
    size = _utf8_size(topic)
    if size is None or not 1 <= size <= MAX_TOPIC_BYTES:
        raise TopicInvalidError(f"expected a topic of 1 to {MAX_TOPIC_BYTES} bytes, got {_shown(topic, size)}")
    if "," in topic or CONTROL.search(topic):
        raise TopicInvalidError(f"expected a topic without control characters or commas, got {topic[:64]!r}")
    if topic[0] == "$" and not own:
        raise TopicInvalidError(f"expected a topic that does not begin with $, got {topic[:64]!r}")
    return topic


def check_beginning(text: str, option: str) -> str:
    """Return `text` if it is a name, or a prefix that ends in `*`.

    Raises:
        RequestInvalidError: It has a star elsewhere, which would not be a wildcard.
    """
    if "*" in text[:-1]:
        raise RequestInvalidError(
            f"expected {option} to be a name, or a prefix that ends in *, got {text[:64]!r}",
            hint=f"Write {text[: text.index('*') + 1]!r} for all names with that prefix; a star elsewhere is no wildcard.",
        )
    return text


def check_key(what: str, key: str) -> str:
    """Return `key` if it is a valid key of an event; `what` names it in the error.

    Raises:
        RequestInvalidError: It is empty, over 256 bytes, or not UTF-8.
    """
    size = _utf8_size(key)
    if size is None or not 1 <= size <= MAX_KEY_BYTES:
        raise RequestInvalidError(f"expected {what} of 1 to {MAX_KEY_BYTES} bytes, got {_shown(key, size)}")
    return key


def check_label(what: str, label: str | None) -> None:
    """Check that a run or an activity may have this name; `what` names the field in the error.

    Raises:
        RequestInvalidError: It is over 1,000 bytes, or not UTF-8.
    """
    size = 0 if label is None else _utf8_size(label)
    if label is not None and (size is None or size > MAX_LABEL_BYTES):
        raise RequestInvalidError(f"expected {what} of at most {MAX_LABEL_BYTES} bytes, got {_shown(label, size)}")


def _utf8_size(text: str) -> int | None:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate: the received text was not UTF-8
        return None


def _shown(text: str, size: int | None) -> str:
    return f"{text[:64]!r}, not UTF-8" if size is None else f"{size} bytes"


def _check_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise BodyInvalidError(f"expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None
