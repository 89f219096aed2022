"""The frames of `/v1/publish`, PROTOCOL.md §3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024 - 64 * 1024


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who publishes where: what `open` says.

    Attributes:
        session: The session.
        publisher: The publisher's name.
        attempt: Its attempt.
        run: Whose output it is.
        activity: The activity.
        workflow: The workflow that it comes from.
        namespace: That workflow's; None for the gateway's own.
        supersede: Whether what earlier attempts published stops to count; None is as the gateway decides.
        epoch: The session's, as the gateway said it last, so that a session deleted since is not created again; None until then.
    """

    session: str
    publisher: str
    attempt: int = 1
    run: str | None = None
    activity: str | None = None
    workflow: str | None = None
    namespace: str | None = None
    supersede: bool | None = None
    epoch: str | None = None

    def is_same(self, other: Identity) -> bool:
        """Whether it is the same attempt of the same publisher in the same session."""
        mine = (self.session, self.publisher, self.attempt)
        return mine == (other.session, other.publisher, other.attempt)


class Ready(msgspec.Struct, tag="ready"):
    """The connection is there."""


class Opened(msgspec.Struct, tag="opened"):
    """A channel is open."""

    channel: int
    next_sequence: int
    earlier_events: int = 0
    epoch: str | None = None


class AppendedFrame(msgspec.Struct, tag="appended"):
    """Everything below `next_sequence` is durable."""

    channel: int
    next_sequence: int


class ErrorFrame(msgspec.Struct, tag="error"):
    """A frame was refused."""

    error: dict[str, Any]
    channel: int | None = None


class TokenFrame(msgspec.Struct, tag="token"):
    """A token was taken."""


class Pong(msgspec.Struct, tag="pong"):
    """A ping was answered."""


ServerFrame = Ready | Opened | AppendedFrame | ErrorFrame | TokenFrame | Pong
decode = msgspec.json.Decoder(ServerFrame).decode


def open_frame(channel: int, identity: Identity) -> bytes:
    """Open a channel."""
    asked = {"type": "open", "channel": channel, **msgspec.to_builtins(identity)}
    return msgspec.json.encode({name: value for name, value in asked.items() if value is not None})


def append_frame(channel: int, sequence: int, bodies: Iterable[bytes]) -> bytes:
    """Append a batch."""
    return b'{"type":"append","channel":%d,"sequence":%d,"events":[%b]}' % (channel, sequence, b",".join(bodies))


def nudge_frame(workflow_id: str, namespace: str | None) -> bytes:
    """A workflow may have something new."""
    told = {"type": "nudge", "workflow_id": workflow_id}
    return msgspec.json.encode(told if namespace is None else {**told, "namespace": namespace})


def close_frame(channel: int) -> bytes:
    """Free a channel."""
    return b'{"type":"close","channel":%d}' % channel
