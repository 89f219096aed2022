"""Messages of a session: a batch, its changes, and the session's state after it.

Every message has the whole state of the session but its publishers. So the last message of each subject is the catalog, and a
reader needs one message to know a session. The publishers follow from a snapshot, which some messages carry, and from the
effects of the messages since.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from wakeline.events import Event, NewEvent
from wakeline.gateway.log.values import Change, SessionState, unix

Stored: TypeAlias = tuple[int, bytes]
"""A message in a stream: its sequence in the stream, and its payload."""


class Summary(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A session's state after a message.

    Attributes:
        session: Its name.
        id: The message's own id.
        prev: The sequence of the subject's message before it; 0 if there was none.
        snapshot_at: The sequence of the last message with a snapshot; 0 if this one has it.
        since: The size of the messages since then.
        alive: Whether there is a session; if not, the life in `epoch` has ended.
        bytes_begin: The size of all events before the oldest kept one.
        bytes_end: The size of all events.
        latest: The latest time of an event so far, Unix time in milliseconds.
        order: The last `Stream-Seq`.
        former: Earlier epochs of the same life: of the draft that it was moved as, and before restores.
    """

    session: str
    id: str
    prev: int
    snapshot_at: int
    since: int
    alive: bool
    epoch: str
    created: str
    first_offset: int
    next_offset: int
    bytes_begin: int
    bytes_end: int
    latest: int
    closed: bool
    draft: bool
    order: str
    config: bytes
    deadline: float | None
    former: tuple[str, ...] = ()

    def has(self, epoch: str) -> bool:
        """Return whether a message of this epoch belongs to the same life."""
        return epoch == self.epoch or epoch in self.former

    def state(self) -> SessionState:
        """Return the state of the session, without a publisher's position."""
        return SessionState(
            self.session,
            self.epoch,
            self.next_offset,
            self.created,
            self.closed,
            self.first_offset,
            self.bytes_end - self.bytes_begin,
            self.config,
            self.deadline,
        )


class Effect(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change of one publisher by a message.

    Attributes:
        publisher: Its name.
        attempt: Its attempt after this.
        owner: The text of its owner; None leaves it unchanged.
        begins: Whether the attempt begins.
        supersedes: Whether it withdraws the events of earlier attempts.
        first_sequence: With `next_sequence`, the sequences that the message adds; equal if it adds none.
        first_offset: With `next_offset`, their offsets.
        forgets: Whether its position is forgotten.
    """

    publisher: str
    attempt: int
    owner: str | None = None
    begins: bool = False
    supersedes: bool = False
    first_sequence: int = 0
    next_sequence: int = 0
    first_offset: int = 0
    next_offset: int = 0
    forgets: bool = False


class Message(msgspec.Struct, frozen=True, array_like=True):
    """A message of a session.

    Attributes:
        summary: The session's state after it.
        first: The offset of its first event.
        latest_before: The latest time of an event before it.
        changes: The changes that listeners receive.
        effects: Its changes of publishers.
        snapshot: The publishers after it; None for a message without a snapshot.
        events: Its events, encoded.
    """

    summary: Summary
    first: int
    latest_before: int
    changes: tuple[Change, ...]
    effects: tuple[Effect, ...]
    snapshot: bytes | None
    events: msgspec.Raw

    def decoded(self) -> list[tuple[str, bytes, int]]:
        """Return the topic, body and time of each event."""
        return _events(self.events)

    def in_log(self) -> list[Event]:
        """Return the events with their offsets."""
        return [Event(self.first + place, topic, body) for place, (topic, body, _) in enumerate(_events(self.events))]


class RecordMessage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change of a record; without a value it was removed.

    Attributes:
        key: The record's key.
        id: The message's own id.
        prev: The sequence of the subject's message before it; 0 if there was none.
    """

    key: str
    id: str
    prev: int
    value: bytes | None


encode: Final = msgspec.msgpack.encode
decode: Final = msgspec.msgpack.Decoder(Message).decode
decode_record: Final = msgspec.msgpack.Decoder(RecordMessage).decode
_events: Final = msgspec.msgpack.Decoder(list[tuple[str, bytes, int]]).decode


def encode_events(events: Sequence[NewEvent]) -> msgspec.Raw:
    """Return events as a message has them."""
    return msgspec.Raw(encode([(event.topic, event.body, unix(event.time)) for event in events]))


def token(name: str) -> str:
    """Return a name as one token of a subject, without dots, spaces and wildcards."""
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode() or "="
