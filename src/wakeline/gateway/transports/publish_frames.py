"""The frames of publishers' connections: what a client may send, what the gateway sends. PROTOCOL.md §3 tells when.

`docs/reference/asyncapi-publishing.yaml` is made from these classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from wakeline.errors import WakelineError
from wakeline.gateway.delivery import Incoming
from wakeline.gateway.log import Opened as LogOpened
from wakeline.gateway.transports import feed_frames

_MOST: Final = 2**53 - 1  # what every JSON reader can hold

Channel: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST, description="A number that the client chooses.")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]


class Open(feed_frames.ClientFrame, frozen=True):
    """Publish as this publisher on this channel; answered by `opened`."""

    channel: Channel
    session: str
    publisher: str
    attempt: Annotated[int, Meta(ge=1, le=_MOST)] = 1
    run: str | None = None
    activity: str | None = None
    supersede: bool | None = None
    workflow: str | None = None
    namespace: str | None = None
    epoch: str | None = None


class Append(feed_frames.ClientFrame, frozen=True):
    """Append a batch; answered by `appended` when it is durable."""

    channel: Channel
    sequence: Count
    events: list[Incoming]


class Close(feed_frames.ClientFrame, frozen=True):
    """The channel is not needed any more."""

    channel: Channel


class Nudge(feed_frames.ClientFrame, frozen=True):
    """A workflow may have something new; unanswered unless it is refused."""

    workflow_id: str
    namespace: str | None = None


class Opened(feed_frames.ServerFrame, frozen=True, omit_defaults=False):
    """The channel is open; appends go on at `next_sequence`."""

    channel: int
    attempt: int
    next_sequence: int
    earlier_events: int
    epoch: str


class Appended(feed_frames.ServerFrame, frozen=True):
    """Everything below `next_sequence` is durable."""

    channel: int
    next_sequence: int
    next_offset: int


class Error(feed_frames.ServerFrame, frozen=True):
    """A frame was refused. Its channel takes no more appends, and answers none, until it is opened again."""

    error: Annotated[dict[str, Any], Meta(description="As in PROTOCOL.md §11.")]
    channel: int | None = None


ClientFrame: TypeAlias = Open | Append | Close | Nudge | feed_frames.Token | feed_frames.Ping

decode = msgspec.json.Decoder(ClientFrame).decode
_encode = msgspec.json.encode


def opened(channel: int, its: LogOpened) -> bytes:
    """The answer to `open`."""
    return _encode(Opened(channel, its.attempt, its.next_sequence, its.earlier_events, its.epoch))


def appended(channel: int, next_sequence: int, next_offset: int) -> bytes:
    """The answer to `append`."""
    return _encode(Appended(channel, next_sequence, next_offset))


def error(channel: int | None, its: WakelineError) -> bytes:
    """An error in the one shape of all endpoints."""
    return _encode(Error(its.wire()["error"], channel))
