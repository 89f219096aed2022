"""The next message of a session, while operations are decided on it.

An operation that is refused is refused before it changes anything. The session's state is changed in place: if the message is not
stored in the end, the state is thrown away and read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from wakeline.errors import SessionImportingError, SessionNotFoundError
from wakeline.events import NewEvent, timestamp
from wakeline.gateway.log.engines.nats.held import Held
from wakeline.gateway.log.engines.nats.messages import Effect, Message, Summary, encode_events
from wakeline.gateway.log.names import check_epoch, new_epoch
from wakeline.gateway.log.values import Change, NewSession, unix

_OVERHEAD = 300  # about the size of a message without events


class Composition:
    """Collects the events, changes and effects of the next message.

    Args:
        name: The session's name.
        held: Its state, which is fresh or will be refused by the stream.

    Attributes:
        touched: Whether there is anything to store.
        sealed: Whether no further operation may be part of this message.
        added: Publishers that are new.
    """

    def __init__(self, name: str, held: Held) -> None:
        self.name = name
        self.held = held
        self.touched = False
        self.sealed = False
        self.added = 0
        self._snapshot = held.alive and held.snapshot_due()
        self._needed = False
        self._first = held.summary.next_offset if held.summary is not None else 0
        self._latest = held.summary.latest if held.summary is not None else 0
        self._events: list[NewEvent] = []
        self._effects: list[Effect] = []
        self._changes: list[Change] = []

    @property
    def summary(self) -> Summary:
        """The state so far."""
        assert self.held.summary is not None
        return self.held.summary

    @property
    def alive(self) -> bool:
        """Whether there is a session."""
        return self.held.alive

    def check_visible(self, epoch: str | None) -> None:
        """Raise if the session is a draft of another epoch than the caller's.

        Raises:
            SessionImportingError: It is.
        """
        if self.alive and self.summary.draft and epoch != self.summary.epoch:
            raise SessionImportingError.of(self.name)

    def check_life(self, epoch: str) -> None:
        """Raise unless the session lives in this epoch.

        Raises:
            SessionNotFoundError: There is no session.
            EpochChangedError: It lives in another epoch.
        """
        if not self.alive or (self.summary.draft and epoch != self.summary.epoch):
            raise SessionNotFoundError(f"there is no session {self.name!r}")
        check_epoch(self.name, self.summary.epoch, epoch)

    def create(self, new: NewSession) -> None:
        """Begin a life of the session, with its first events."""
        self.held.begin()
        self._snapshot = self._needed = self.touched = True
        first, self._first, self._latest = new.first_offset, new.first_offset, 0
        self.held.summary = Summary(
            self.name, "", 0, 0, 0, True, new_epoch(), timestamp(), first, first, 0, 0, 0, new.closed, new.draft, "",
            new.config, new.deadline,
        )  # fmt: skip
        self.add(new.events)

    def put(self, **fields: Any) -> None:
        """Change fields of the state."""
        self.held.summary = msgspec.structs.replace(self.summary, **fields)
        self.touched = True

    def add(self, events: Sequence[NewEvent]) -> None:
        """Append events."""
        if not events:
            return
        self._events += events
        self.put(
            next_offset=self.summary.next_offset + len(events),
            bytes_end=self.summary.bytes_end + sum(len(event.body) for event in events),
            latest=max(self.summary.latest, *(unix(event.time) for event in events)),
        )

    def effect(self, effect: Effect) -> None:
        """Change a publisher."""
        self.touched = True
        self.added += effect.publisher not in self.held.publishers
        self.held.apply(effect)
        self._effects.append(effect)

    def changed(self, change: Change) -> None:
        """Report a change to listeners."""
        self.touched = True
        self._changes.append(change)

    def need_snapshot(self) -> None:
        """Carry a snapshot."""
        self._needed = self._snapshot = True

    @property
    def events(self) -> int:
        """The number of new events."""
        return len(self._events)

    def message(self, id: str, *, least: bool = False) -> Message:
        """Return the message of all that was collected.

        Args:
            id: Its id.
            least: Leave out a snapshot that is only due.
        """
        self._snapshot &= not least or self._needed
        size = sum(len(event.body) + 32 for event in self._events) + _OVERHEAD + 64 * len(self._effects)
        snapshot_at, since = (0, 0) if self._snapshot else (self.held.snapshot_at, self.summary.since + size)
        summary = msgspec.structs.replace(self.summary, id=id, prev=self.held.seq, snapshot_at=snapshot_at, since=since)
        snapshot = self.held.snapshot() if self._snapshot else None
        return Message(
            summary,
            self._first,
            self._latest,
            tuple(self._changes),
            tuple(self._effects),
            snapshot,
            encode_events(self._events),
        )
