"""The frames of `/v1/publish`, PROTOCOL.md §3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024 - 64 * 1024


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The identity of a publisher in a session: the members of the frame `open`.

    Attributes:
        session: The session.
        publisher: The publisher's name.
        attempt: Its attempt.
        run: The workflow run whose output it publishes.
        activity: The activity id.
        workflow: The Workflow Id of the workflow that it belongs to.
        namespace: That workflow's namespace; None is the gateway's own.
        supersede: Whether it supersedes the events of earlier attempts; None leaves that to the gateway.
        epoch: The session's epoch, once the gateway has returned it: a session deleted since then is not created again.
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

    @property
    def key(self) -> tuple[str, str, int]:
        """The attempt that it is: session, publisher and attempt."""
        return self.session, self.publisher, self.attempt


class Ready(msgspec.Struct, tag="ready"):
    """The connection is ready."""


class Opened(msgspec.Struct, tag="opened"):
    """A channel is open."""

    channel: int
    next_sequence: int
    earlier_events: int = 0
    epoch: str | None = None


class AppendedFrame(msgspec.Struct, tag="appended"):
    """All events below `next_sequence` are durable."""

    channel: int
    next_sequence: int


class ErrorFrame(msgspec.Struct, tag="error"):
    """A frame was refused."""

    error: dict[str, Any]
    channel: int | None = None


class WarningFrame(msgspec.Struct, tag="warning"):
    """A publisher is served, but its workflow is not followed."""

    channel: int
    message: str
    hint: str


class TokenFrame(msgspec.Struct, tag="token"):
    """A token was accepted."""


class Pong(msgspec.Struct, tag="pong"):
    """A ping was answered."""


ServerFrame = Ready | Opened | AppendedFrame | ErrorFrame | WarningFrame | TokenFrame | Pong
decode = msgspec.json.Decoder(ServerFrame).decode


def open_frame(channel: int, identity: Identity) -> bytes:
    """Return the frame that opens a channel."""
    members = {"type": "open", "channel": channel, **msgspec.to_builtins(identity)}
    return msgspec.json.encode({name: value for name, value in members.items() if value is not None})


def append_frame(channel: int, sequence: int, bodies: Iterable[bytes]) -> bytes:
    """Return the frame that appends a batch."""
    return b'{"type":"append","channel":%d,"sequence":%d,"events":[%b]}' % (channel, sequence, b",".join(bodies))


def nudge_frame(workflow_id: str, namespace: str | None) -> bytes:
    """Return the frame that notifies the gateway of a workflow's new output."""
    members = {"type": "nudge", "workflow_id": workflow_id}
    return msgspec.json.encode(members if namespace is None else {**members, "namespace": namespace})


def close_frame(channel: int) -> bytes:
    """Return the frame that frees a channel."""
    return b'{"type":"close","channel":%d}' % channel
