"""The feed's frames: what a client may send, what the gateway sends, and their bytes. PROTOCOL.md §5 tells when.

`docs/reference/asyncapi.yaml` is made from these classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from wakeline.errors import WakelineError
from wakeline.events import Cursor, Event
from wakeline.gateway.delivery import MAX_TOPICS, within

MAX_FRAME_BYTES: Final = 64 * 1024
"""The largest frame that is taken from a client."""

EVENTS_BYTES: Final = 512 * 1024
"""The most bytes of events in one frame, unless a single event is larger."""

MAX_FIRST_BYTES: Final = 16 * 1024
"""The largest message that is accepted from a client before its token."""

_TEXT, _CLOSE, _PONG = 0x81, 0x88, 0x8A

WhatEnded: TypeAlias = Literal["settled", "closed", "deleted", "error"]

_encode = msgspec.json.encode


class ClientFrame(Struct, tag_field="type", tag=str.lower, frozen=True, forbid_unknown_fields=True):
    """Anything a client sends."""


class Subscribe(ClientFrame, frozen=True):
    """Read a session from here on; answered by `subscribed`, then `events`."""

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
    """Read a session no more; answered by `unsubscribed`, and nothing of the session comes after it."""

    session: str


class Ack(ClientFrame, frozen=True):
    """The device has seen everything before `seen`; answered by `acked` when that is durable."""

    session: str
    seen: str
    everywhere: Annotated[bool, Meta(description="The user's other devices have seen it, too.")] = False


class Token(ClientFrame, frozen=True):
    """The connection lives as long as this token, from now on; answered by `token`."""

    token: str


class Ping(ClientFrame, frozen=True):
    """Answered by `pong` with the same `data`."""

    data: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))


class ServerFrame(Struct, tag_field="type", tag=str.lower, frozen=True, omit_defaults=True):
    """Anything the gateway sends."""


class Ready(ServerFrame, frozen=True):
    """The first frame."""

    expires: Annotated[str, Meta(description="When the token ends, RFC 3339.")] | None = None


class Subscribed(ServerFrame, frozen=True):
    """The session is read from `cursor` on."""

    session: str
    cursor: str
    epoch: str


class Events(ServerFrame, frozen=True):
    """Events of a session, as PROTOCOL.md §2 has them; `cursor` is after the last of them."""

    session: str
    events: list[dict[str, Any]]
    cursor: str


class Unsubscribed(ServerFrame, frozen=True):
    """Nothing more comes of the session; `cursor` is after all that came, and missing where nothing was to come yet."""

    session: str
    cursor: str | None = None


class End(ServerFrame, frozen=True):
    """Nothing more will come of the session; for an `error`, the frame before tells which."""

    session: str
    cursor: str
    reason: WhatEnded


class Acked(ServerFrame, frozen=True):
    """What the device has seen is durable; `seen` is the position now."""

    session: str
    seen: str


class Presence(ServerFrame, frozen=True):
    """A device of somebody who watches the session has come or gone."""

    session: str
    event: Literal["join", "leave"]
    user: str
    device: str


class TokenTaken(ServerFrame, frozen=True, tag="token"):
    """The new token was taken."""

    expires: Annotated[str, Meta(description="When it ends, RFC 3339.")] | None = None


class Pong(ServerFrame, frozen=True):
    """The answer to `ping`."""

    data: msgspec.Raw


class Error(ServerFrame, frozen=True):
    """A frame could not be served, or a session cannot be read any more. The connection goes on."""

    error: Annotated[dict[str, Any], Meta(description="As in PROTOCOL.md §11.")]
    session: str | None = None


def error_frame(error: WakelineError, session: str | None = None) -> Error:
    """An error in the one shape of all endpoints."""
    return Error(error.wire()["error"], session)


def encode(frame: ServerFrame) -> bytes:
    """A frame of the gateway's as a WebSocket frame."""
    return text(_encode(frame))


def text(message: bytes) -> bytes:
    """A message as a WebSocket frame."""
    return _framed(_TEXT, message)


def events(session: str, epoch: str, stretch: Sequence[Event]) -> bytes:
    """Return a session's events as WebSocket frames, made once for all of its connections."""
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
    """Events of a session's compact form as WebSocket frames: the cursor stays at the beginning."""
    return b"".join([_events(session, Cursor(epoch, 0), part) for part in within(EVENTS_BYTES, stretch)])


def pong(data: bytes) -> bytes:
    """The answer to a ping of the WebSocket protocol."""
    return _framed(_PONG, data)


def _framed(kind: int, payload: bytes) -> bytes:
    """One whole frame; what a server sends is not masked."""
    size = len(payload)
    if size < 126:
        return bytes((kind, size)) + payload
    if size < 1 << 16:
        return pack("!BBH", kind, 126, size) + payload
    return pack("!BBQ", kind, 127, size) + payload


def sse(session: str, _: str, stretch: Sequence[Event]) -> bytes:
    """Events of a session as events of an SSE feed, but for their ids, which are each connection's own."""
    prefix = sse_prefix(session)
    return b"".join([b"%b%d,%b}\n\n" % (prefix, event.offset, event.body) for event in stretch])


def sse_prefix(session: str) -> bytes:
    """What stands before the offset of each of the session's events."""
    return b'data: {"session":%b,"event":{"offset":' % _encode(session)


def sse_reset(session: str, error: WakelineError) -> bytes:
    """Tells a reader of an SSE feed that its position in a session is worth nothing."""
    return b"event: reset\ndata: %b\n\n" % _encode({"session": session, **error.wire()})
