"""The feed's frames, their fields and their bytes; PROTOCOL.md §5 defines when each is sent.

`docs/reference/asyncapi.yaml` describes these classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from wakeline.errors import WakelineError
from wakeline.events import Cursor, Event
from wakeline.gateway.delivery import MAX_TOPICS, within
from wakeline.gateway.inputs import Asked

MAX_FRAME_BYTES: Final = 64 * 1024
"""The largest frame that is accepted from a client."""

EVENTS_BYTES: Final = 512 * 1024
"""The most bytes of events in one frame; a single larger event has a frame of its own."""

MAX_FIRST_BYTES: Final = 16 * 1024
"""The largest message that is accepted from a client before its token."""

_TEXT, _CLOSE, _PONG = 0x81, 0x88, 0x8A

WhatEnded: TypeAlias = Literal["settled", "closed", "deleted", "error"]

_encode = msgspec.json.encode


class ClientFrame(Struct, tag_field="type", tag=str.lower, frozen=True, forbid_unknown_fields=True):
    """Base of the frames that a client sends."""


class Subscribe(ClientFrame, frozen=True):
    """Reads a session; answered by `subscribed`, then `events`."""

    session: str
    from_: Annotated[str, Meta(description="Where to begin; see PROTOCOL.md §4.")] = field(
        name="from", default="beginning"
    )
    topics: Annotated[list[str], Meta(min_length=1, max_length=MAX_TOPICS)] | None = None
    view: Literal["raw", "compact"] = "raw"
    until: Literal["settled", "never"] = "never"
    presence: bool = False
    wait_for_start: bool = False


class Unsubscribe(ClientFrame, frozen=True):
    """Stops reading a session; answered by `unsubscribed`, the last frame for the session."""

    session: str


class Ack(ClientFrame, frozen=True):
    """Reports that the device has seen everything before `seen`; answered by a durable `acked`."""

    session: str
    seen: str
    everywhere: Annotated[bool, Meta(description="The user's other devices have seen it, too.")] = False


class Input(ClientFrame, frozen=True):
    """Sends an input to a run of the session; answered by `outcome`, or by `error` with its id."""

    session: str
    input: Annotated[Asked, Meta(description="The body of POST …/inputs, PROTOCOL.md §13.")]


class Token(ClientFrame, frozen=True):
    """Replaces the token, with which the connection ends; answered by `token`."""

    token: str


class Ping(ClientFrame, frozen=True):
    """Requests a `pong` with the same `data`."""

    data: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))


class ServerFrame(Struct, tag_field="type", tag=str.lower, frozen=True, omit_defaults=True):
    """Base of the frames that the gateway sends."""


class Ready(ServerFrame, frozen=True):
    """The first frame, sent when the connection is ready."""

    expires: Annotated[str, Meta(description="When the token ends, RFC 3339.")] | None = None


class Subscribed(ServerFrame, frozen=True):
    """Confirms that the session is read from `cursor` on."""

    session: str
    cursor: str
    epoch: str


class Events(ServerFrame, frozen=True):
    """Events of a session (PROTOCOL.md §2); `cursor` is after the last of them."""

    session: str
    events: list[dict[str, Any]]
    cursor: str


class Unsubscribed(ServerFrame, frozen=True):
    """Confirms the end of a subscription, with the `cursor` after its events if it began."""

    session: str
    cursor: str | None = None


class End(ServerFrame, frozen=True):
    """Ends a session's events; for an `error`, the frame before describes it."""

    session: str
    cursor: str
    reason: WhatEnded


class Acked(ServerFrame, frozen=True):
    """Confirms that the seen position is durable; `seen` is the position now."""

    session: str
    seen: str


class Outcome(ServerFrame, frozen=True):
    """Answers `input`; `accepted` is the answer to one that has no outcome in time."""

    session: str
    id: str
    status: Literal["completed", "rejected", "accepted"]
    result: msgspec.Raw | UnsetType = UNSET
    result_payload: msgspec.Raw | UnsetType = UNSET
    result_bytes: msgspec.Raw | UnsetType = UNSET
    failure: msgspec.Raw | UnsetType = UNSET


class Presence(ServerFrame, frozen=True):
    """Reports that a device joined or left a session."""

    session: str
    event: Literal["join", "leave"]
    user: str
    device: str


class TokenTaken(ServerFrame, frozen=True, tag="token"):
    """Confirms that the new token was accepted."""

    expires: Annotated[str, Meta(description="When it ends, RFC 3339.")] | None = None


class Pong(ServerFrame, frozen=True):
    """Answers `ping`."""

    data: msgspec.Raw


class Error(ServerFrame, frozen=True):
    """Reports a refused frame, or a session that cannot be read further; the feed continues."""

    error: Annotated[dict[str, Any], Meta(description="As in PROTOCOL.md §11.")]
    session: str | None = None
    input: Annotated[str, Meta(description="The id of the input that was refused.")] | None = None


def error_frame(error: WakelineError, session: str | None = None, input: str | None = None) -> Error:
    """Return an error as a frame, in the format of all endpoints."""
    return Error(error.wire()["error"], session, input)


def encode(frame: ServerFrame) -> bytes:
    """Return the bytes of a server's frame."""
    return text(_encode(frame))


def text(message: bytes) -> bytes:
    """Return a message as a WebSocket text frame."""
    return _framed(_TEXT, message)


def events(session: str, epoch: str, stretch: Sequence[Event]) -> bytes:
    """Return a session's events as WebSocket frames, encoded once for all of its connections."""
    return b"".join(
        [_events(session, Cursor(epoch, part[-1].offset + 1), part) for part in within(EVENTS_BYTES, stretch)]
    )


def _events(session: str, cursor: Cursor, stretch: Sequence[Event]) -> bytes:
    payload = b'{"type":"events","session":%b,"events":[%b],"cursor":"%b"}' % (
        _encode(session),
        b",".join([event.json() for event in stretch]),
        str(cursor).encode(),
    )
    return _framed(_TEXT, payload)


def compact_events(session: str, epoch: str, stretch: Sequence[Event]) -> bytes:
    """Return compact events as WebSocket frames, whose cursor stays at the beginning."""
    return b"".join([_events(session, Cursor(epoch, 0), part) for part in within(EVENTS_BYTES, stretch)])


def pong(data: bytes) -> bytes:
    """Return the answer to a ping of the WebSocket protocol."""
    return _framed(_PONG, data)


def _framed(kind: int, payload: bytes) -> bytes:
    """Return one whole frame, unmasked as all frames of a server."""
    size = len(payload)
    if size < 126:
        return bytes((kind, size)) + payload
    if size < 1 << 16:
        return pack("!BBH", kind, 126, size) + payload
    return pack("!BBQ", kind, 127, size) + payload


def sse(session: str, _: str, stretch: Sequence[Event]) -> bytes:
    """Return a session's events for an SSE feed, without their ids, which each connection adds."""
    prefix = sse_prefix(session)
    return b"".join([b"%b%d,%b}\n\n" % (prefix, event.offset, event.body) for event in stretch])


def sse_prefix(session: str) -> bytes:
    """Return the bytes before the offset of each of the session's events."""
    return b'data: {"session":%b,"event":{"offset":' % _encode(session)


def sse_reset(session: str, error: WakelineError) -> bytes:
    """Return an SSE event that makes the reader discard its position in a session."""
    return b"event: reset\ndata: %b\n\n" % _encode({"session": session, **error.wire()})
