"""Appending inside the writer's transaction: who is at which position, and which rows follow from a batch.

Positions are cached, so an append usually reads nothing. Rows are gathered and written with one statement per table just
before the commit; a decision that refuses an append is made before anything of it was gathered.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from wakeline.errors import SessionClosedError
from wakeline.events import Event, timestamp
from wakeline.gateway.log import Append, Appended, Position, Publication, already_there, new_epoch

_MAX_CACHED: Final = 100_000


@dataclass(slots=True)
class _Session:
    id: int
    epoch: str
    next_offset: int
    closed: bool


@dataclass(slots=True)
class _Stretch:
    """One row of `publications`: sequences [first, next) at offsets [first, next)."""

    first_sequence: int
    next_sequence: int
    first_offset: int
    next_offset: int

    def extends_to(self, sequence: int, offset: int) -> bool:
        one_to_one = self.next_sequence - self.first_sequence == self.next_offset - self.first_offset
        return one_to_one and self.next_sequence == sequence and self.next_offset == offset


@dataclass(slots=True)
class _Publisher:
    id: int
    attempt: int
    last: _Stretch

    @property
    def position(self) -> Position:
        return Position(self.attempt, self.last.next_sequence)


class Appends:
    """The appends of the transaction under way, and what is known from those before it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sessions: dict[str, _Session] = {}
        self._publishers: dict[tuple[int, str], _Publisher] = {}
        self._rows: list[tuple[int, int, str, bytes]] = []
        self._stretches: dict[tuple[int, int], _Stretch] = {}
        self.committed: dict[str, list[Event]] = {}

    def append(self, append: Append) -> Appended:
        """Decide on a batch and gather its rows."""
        session = self._session(append.session)
        if session is not None and session.closed:
            raise SessionClosedError(f"expected an open session, {append.session!r} is closed")
        publication, there = append.publication, 0
        publisher: _Publisher | None = None
        if publication is not None:
            publisher = self._publisher(session, publication.publisher)
            there = already_there(publisher.position if publisher else None, publication, len(append.events))
        if session is None:
            session = self._create_session(append.session)
        first_new = session.next_offset
        events = [Event(first_new + i, e.topic, e.body) for i, e in enumerate(append.events[there:])]
        if events:
            session.next_offset += len(events)
            self._rows += [(session.id, e.offset, e.topic, e.body) for e in events]
            self.committed.setdefault(append.session, []).extend(events)
            if publication is not None:
                publisher = self._advance(session, publisher, publication, there, first_new)
        if not there or publication is None or publisher is None:
            return Appended(first_new, session.next_offset, session.epoch)
        last = publication.sequence + (publication.covers or len(append.events)) - 1
        first, after = self._offset_of(publisher, publication.sequence), self._offset_of(publisher, last) + 1
        return Appended(first, after, session.epoch, duplicate=not events)

    def flush(self) -> None:
        """Write what was gathered; the caller commits."""
        if self._rows:
            self._connection.executemany(
                "INSERT INTO events (session, offset, topic, body) VALUES (?, ?, ?, ?)", self._rows
            )
            self._rows.clear()
        if self._stretches:
            self._connection.executemany(
                "INSERT INTO publications VALUES (?, ?, ?, ?, ?) ON CONFLICT (publisher, first_sequence)"
                " DO UPDATE SET next_sequence = excluded.next_sequence, next_offset = excluded.next_offset",
                [
                    (publisher, s.first_sequence, s.next_sequence, s.first_offset, s.next_offset)
                    for (publisher, _), s in self._stretches.items()
                ],
            )
            self._stretches.clear()

    def take_committed(self) -> dict[str, list[Event]]:
        """The events of the transaction just committed, by session; bounds the caches."""
        committed, self.committed = self.committed, {}
        if len(self._sessions) > _MAX_CACHED or len(self._publishers) > _MAX_CACHED:
            self.forget()
        return committed

    def forget(self) -> None:
        """Drop everything gathered and cached: after a rollback, only the file knows what is true."""
        self._sessions.clear()
        self._publishers.clear()
        self._rows.clear()
        self._stretches.clear()
        self.committed.clear()

    def forget_session(self, name: str) -> None:
        """Drop what is cached of one session: its row has changed."""
        session = self._sessions.pop(name, None)
        if session is not None:
            self._publishers = {key: p for key, p in self._publishers.items() if key[0] != session.id}

    def _session(self, name: str) -> _Session | None:
        session = self._sessions.get(name)
        if session is None:
            row = self._connection.execute(
                "SELECT id, epoch, (SELECT coalesce(max(offset) + 1, 0) FROM events WHERE session = sessions.id), closed"
                " FROM sessions WHERE name = ?",
                (name,),
            ).fetchone()
            if row is not None:
                session = self._sessions[name] = _Session(row[0], row[1], row[2], bool(row[3]))
        return session

    def _create_session(self, name: str) -> _Session:
        epoch = new_epoch()
        cursor = self._connection.execute(
            "INSERT INTO sessions (name, epoch, created) VALUES (?, ?, ?)", (name, epoch, timestamp())
        )
        assert cursor.lastrowid is not None
        session = self._sessions[name] = _Session(cursor.lastrowid, epoch, 0, closed=False)
        return session

    def _publisher(self, session: _Session | None, name: str) -> _Publisher | None:
        if session is None:
            return None
        publisher = self._publishers.get((session.id, name))
        if publisher is None:
            row = self._connection.execute(
                "SELECT id, attempt, first_sequence, next_sequence, first_offset, next_offset FROM publishers"
                " JOIN publications ON publisher = id WHERE session = ? AND name = ?"
                " ORDER BY first_sequence DESC LIMIT 1",
                (session.id, name),
            ).fetchone()
            if row is not None:
                publisher = self._publishers[session.id, name] = _Publisher(row[0], row[1], _Stretch(*row[2:]))
        return publisher

    def _advance(
        self, session: _Session, publisher: _Publisher | None, publication: Publication, there: int, first_new: int
    ) -> _Publisher:
        first = publication.sequence + there
        after = first + (publication.covers or session.next_offset - first_new)
        if publisher is None or publisher.attempt != publication.attempt:
            stretch = _Stretch(first, after, first_new, session.next_offset)
            publisher = self._begin_attempt(session, publisher, publication, stretch)
        elif publication.covers is None and publisher.last.extends_to(first, first_new):
            publisher.last.next_sequence, publisher.last.next_offset = after, session.next_offset
        else:
            publisher.last = _Stretch(first, after, first_new, session.next_offset)
        self._stretches[publisher.id, publisher.last.first_sequence] = publisher.last
        return publisher

    def _begin_attempt(
        self, session: _Session, earlier: _Publisher | None, publication: Publication, stretch: _Stretch
    ) -> _Publisher:
        if earlier is None:
            row = self._connection.execute(
                "INSERT INTO publishers (session, name, attempt) VALUES (?, ?, ?)",
                (session.id, publication.publisher, publication.attempt),
            )
            assert row.lastrowid is not None
            publisher = _Publisher(row.lastrowid, publication.attempt, stretch)
        else:
            # The earlier attempt is refused from now on, so nobody asks where its events stand.
            self.flush()
            self._connection.execute("DELETE FROM publications WHERE publisher = ?", (earlier.id,))
            self._connection.execute(
                "UPDATE publishers SET attempt = ? WHERE id = ?", (publication.attempt, earlier.id)
            )
            publisher = _Publisher(earlier.id, publication.attempt, stretch)
        self._publishers[session.id, publication.publisher] = publisher
        return publisher

    def _offset_of(self, publisher: _Publisher, sequence: int) -> int:
        stretch = publisher.last
        if sequence < stretch.first_sequence:
            self.flush()
            row = self._connection.execute(
                "SELECT first_sequence, next_sequence, first_offset, next_offset FROM publications"
                " WHERE publisher = ? AND first_sequence <= ? ORDER BY first_sequence DESC LIMIT 1",
                (publisher.id, sequence),
            ).fetchone()
            stretch = _Stretch(*row)
        return min(stretch.first_offset + sequence - stretch.first_sequence, stretch.next_offset - 1)
