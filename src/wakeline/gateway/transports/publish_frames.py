"""The frames of publishers' connections; PROTOCOL.md §3 defines when each is sent.

`docs/reference/asyncapi-publishing.yaml` describes these classes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from wakeline.gateway.delivery import Incoming
from wakeline.gateway.transports import feed_frames

_MOST: Final = 2**53 - 1  # the largest integer that every JSON parser represents exactly

Channel: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST, description="A number that the client chooses.")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]


class Open(feed_frames.ClientFrame, frozen=True):
    """Opens a publisher's attempt on a channel; answered by `opened`."""

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
    """Appends a batch; answered by `appended` when it is durable."""

    channel: Channel
    sequence: Count
    events: list[Incoming]


class Close(feed_frames.ClientFrame, frozen=True):
    """Releases a channel."""

    channel: Channel


class Nudge(feed_frames.ClientFrame, frozen=True):
    """Reports that a workflow may have new events; answered only if it is refused."""

    workflow_id: str
    namespace: str | None = None


class Opened(feed_frames.ServerFrame, frozen=True, omit_defaults=False):
    """Confirms that the channel is open; the next append has the sequence `next_sequence`."""

    channel: int
    attempt: int
    next_sequence: int
    earlier_events: int
    epoch: str


class Appended(feed_frames.ServerFrame, frozen=True):
    """Confirms that everything below `next_sequence` is durable."""

    channel: int
    next_sequence: int
    next_offset: int


class Error(feed_frames.ServerFrame, frozen=True):
    """Reports a refused frame; its channel then ignores appends until it is opened again."""

    error: Annotated[dict[str, Any], Meta(description="As in PROTOCOL.md §11.")]
    channel: int | None = None


class Warning(feed_frames.ServerFrame, frozen=True):
    """Warns about a publisher that is served; its channel continues."""

    channel: int
    message: str
    hint: str


ClientFrame: TypeAlias = Open | Append | Close | Nudge | feed_frames.Token | feed_frames.Ping

decode = msgspec.json.Decoder(ClientFrame).decode


class _Addressed(msgspec.Struct):
    channel: int | None = None


_addressed = msgspec.json.Decoder(_Addressed)
_BEGINS: Final = re.compile(r'\s*\{\s*"type"\s*:\s*"[a-z]*"\s*,\s*"channel"\s*:\s*([0-9]{1,16})\s*[,}]')
"""Start of a frame that names its channel, so that an unreadable rest fails only that channel."""


def addressed(line: str) -> int | None:
    """Return the channel of a frame that cannot be read; None if it is of none.

    Raises:
        msgspec.DecodeError: It is not a frame.
    """
    try:
        return _addressed.decode(line).channel
    except (msgspec.DecodeError, RecursionError) as error:
        begins = _BEGINS.match(line)
        if begins is None:
            raise msgspec.DecodeError(str(error)) from None
        return int(begins[1])
