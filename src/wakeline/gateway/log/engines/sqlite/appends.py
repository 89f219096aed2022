"""Appends in the writer's transaction: decides on batches and collects their rows.

Positions are cached, so an append usually reads nothing. Rows are collected and written with one statement per table just
before the commit. An append that is refused is refused before any of its rows is collected.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from wakeline.errors import SessionClosedError, SessionImportingError
from wakeline.events import Event, NewEvent, timestamp
from wakeline.gateway.log.counts import Counts
from wakeline.gateway.log.engines.sqlite.owned import Owned
from wakeline.gateway.log.engines.sqlite.stretches import Stretches
from wakeline.gateway.log.feed import Commit
from wakeline.gateway.log.names import new_epoch
from wakeline.gateway.log.owners import Owner, check_room, move
from wakeline.gateway.log.plan import Plan, begins, check_life, plan_append, superseded
from wakeline.gateway.log.stretch import Stretch
from wakeline.gateway.log.values import Append, Appended, Change, NewSession, Opened, Position, Publication, unix

_MAX_CACHED: Final = 100_000

Life: TypeAlias = tuple[str, str]
"""A session's name and its epoch."""


@dataclass(slots=True)
class _Publisher:
    id: int
    attempt: int
    last: Stretch
    owner: Owner | None

    @property
    def position(self) -> Position:
        return Position(self.attempt, self.last.next_sequence, self.owner)


@dataclass(slots=True)
class _Session:
    id: int
    epoch: str
    next_offset: int
    bytes_before: int
    latest: int
    closed: bool
    draft: bool
    order: str
    publishers: dict[str, _Publisher] = field(default_factory=dict)


@dataclass(slots=True)
class News:
    """The events and changes of one life of a session in a transaction, for its listeners."""

    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


class Appends:
    """The appends of the current transaction, and a cache of sessions and publishers."""

    def __init__(self, connection: sqlite3.Connection, counts: Counts) -> None:
        self._connection = connection
        self._counts = counts
        self._added = 0
        self._sessions: dict[str, _Session] = {}
        self._publishers = 0
        self._rows: list[tuple[int, int, str, bytes, int, int]] = []
        self._stretches: dict[tuple[int, int], Stretch] = {}
        self._news: dict[Life, News] = {}
        self._owned = Owned(connection)
        self.stretches = Stretches(connection)

    def append(self, append: Append) -> Appended:
        """Decide on a batch and collect its rows; see `Log.append`."""
        session = self._session(append.session, append.epoch)
        publication, publisher = append.publication, None
        if session is not None and publication is not None:
            publisher = self._publisher(session, publication.publisher)
        plan = plan_append(append, publisher.position if publisher else None, session)
        there = plan.there
        if session is None:
            session = self.create(NewSession(append.session))
        elif publisher is None and publication is not None:
            self._check_room(append.session, session, publication)
        if plan.begins and plan.advances and publisher is not None and publication is not None:
            self._end_earlier(append.session, session, publisher, publication)
        if plan.order != session.order:
            self._connection.execute("UPDATE sessions SET writer_order = ? WHERE id = ?", (plan.order, session.id))
            session.order = plan.order
        first_new = session.next_offset
        events = self._add(append.session, session, append.events[there:])
        if plan.advances and publication is not None:
            publisher = self._advance(session, publisher, publication, plan, first_new)
        if plan.closes:
            self._connection.execute("UPDATE sessions SET closed = 1 WHERE id = ?", (session.id,))
            session.closed = True
            if not session.draft:
                self.changed(append.session, session.epoch, "closed")
        if not there or not append.events or publication is None or publisher is None:
            return Appended(first_new, session.next_offset, session.epoch, duplicate=plan.duplicate)
        last = publication.sequence + (publication.covers or len(append.events)) - 1
        first, after = self._offset_of(publisher, publication.sequence), self._offset_of(publisher, last) + 1
        return Appended(first, after, session.epoch, duplicate=not events)

    def open(self, name: str, publication: Publication, epoch: str | None = None) -> Opened:
        """Begin an attempt; see `Log.open_attempt`."""
        session = self._session(name)
        publisher = self._publisher(session, publication.publisher) if session is not None else None
        position = publisher.position if publisher else None
        check_life(name, session.epoch if session is not None else None, epoch, position)
        beginning = begins(position, publication)
        if session is None:
            session = self.create(NewSession(name))
            self.changed(name, session.epoch, "configured")
        if beginning:
            if session.closed:
                raise SessionClosedError(f"expected an open session, {name!r} is closed")
            if publisher is None:
                self._check_room(name, session, publication)
            else:
                self._end_earlier(name, session, publisher, publication)
            at = session.next_offset
            publisher = self._begin_attempt(session, publisher, publication, Stretch(0, 0, at, at))
            self._stretches[publisher.id, 0] = publisher.last
        assert publisher is not None
        self._used_by(session, publisher, publication.owner)
        (earlier,) = self._connection.execute(
            "SELECT coalesce(sum(next_offset - first_offset), 0) FROM kept WHERE publisher = ?", (publisher.id,)
        ).fetchone()
        return Opened(publisher.attempt, publisher.last.next_sequence, earlier, session.epoch)

    def create(self, new: NewSession) -> _Session:
        """Create a session that does not exist; see `Catalog.create_session`."""
        name, epoch, first = new.session, new_epoch(), new.first_offset
        # Not an id of a session that is being erased: its rows still have that id.
        (newest,) = self._connection.execute(
            "SELECT max(coalesce((SELECT max(id) FROM sessions), 0), coalesce((SELECT max(session) FROM erasing), 0))"
        ).fetchone()
        self._connection.execute(
            "INSERT INTO sessions (id, name, epoch, created, closed, first_offset, config, deadline, draft)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (newest + 1, name, epoch, timestamp(), new.closed, first, new.config, new.deadline, new.draft),
        )
        session = self._sessions[name] = _Session(newest + 1, epoch, first, 0, 0, new.closed, new.draft, "")
        self._add(name, session, new.events)
        return session

    def flush(self) -> None:
        """Write the collected rows; the caller commits."""
        if self._rows:
            self._connection.executemany(
                "INSERT INTO events (session, offset, topic, body, bytes_before, latest) VALUES (?, ?, ?, ?, ?, ?)",
                self._rows,
            )
            self._rows.clear()
        if self._stretches:
            self._connection.executemany(
                "INSERT INTO publications VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (publisher, first_sequence)"
                " DO UPDATE SET next_sequence = excluded.next_sequence, next_offset = excluded.next_offset,"
                " first_offset = excluded.first_offset",  # for an attempt that has appended nothing yet
                [
                    (publisher, s.first_sequence, s.next_sequence, s.first_offset, s.next_offset)
                    for (publisher, _), s in self._stretches.items()
                ],
            )
            self._stretches.clear()

    def take_commits(self) -> list[Commit]:
        """Return what the committed transaction changed, in order per session, and bound the caches."""
        news, self._news = self._news, {}
        self._counts.publishers(self._added)
        self._counts.merged(self.stretches.merged)
        self._added = self.stretches.merged = 0
        if len(self._sessions) > _MAX_CACHED or self._publishers > _MAX_CACHED:
            self.forget()
        return [Commit(name, epoch, new.events, new.changes) for (name, epoch), new in news.items()]

    def changed(self, session: str, epoch: str, change: Change) -> None:
        """Add a change of a session to the news of the transaction."""
        if change == "deleted":
            self._news.pop((session, epoch), None)  # no reader can have seen the transaction's other changes of it
        self._news.setdefault((session, epoch), News()).changes.append(change)

    def forget(self) -> None:
        """Drop all collected rows and caches: after a rollback, only the file has the state."""
        self._sessions.clear()
        self._owned.forget()
        self._publishers = 0
        self._rows.clear()
        self._stretches.clear()
        self._news.clear()
        self._added = self.stretches.merged = 0

    def forget_session(self, name: str) -> None:
        """Drop the cache of one session, whose row has changed."""
        session = self._sessions.pop(name, None)
        if session is not None:
            self._publishers -= len(session.publishers)

    def forget_publisher(self, name: str, publisher: str) -> None:
        """Remove the position of a publisher; see `Log.forget_publisher`."""
        self.flush()
        session = self._session(name)
        found = self._publisher(session, publisher) if session is not None else None
        if session is None or found is None:
            return
        for table in ("publications", "kept"):
            self._connection.execute(f"DELETE FROM {table} WHERE publisher = ?", (found.id,))
        self._connection.execute("DELETE FROM publishers WHERE id = ?", (found.id,))
        move(self._owned.of(session.id, session.epoch), found.owner, None)
        del session.publishers[publisher]
        self._publishers -= 1

    def _session(self, name: str, epoch: str | None = None) -> _Session | None:
        session = self._sessions.get(name)
        if session is None:
            row = self._connection.execute(
                "SELECT id, epoch, first_offset, closed, draft, writer_order FROM sessions WHERE name = ?", (name,)
            ).fetchone()
            if row is not None:
                last = self._connection.execute(
                    "SELECT offset + 1, bytes_before + length(body), latest FROM events WHERE session = ?"
                    " ORDER BY offset DESC LIMIT 1",
                    (row[0],),
                ).fetchone()
                next_offset, size, latest = last or (row[2], 0, 0)
                session = self._sessions[name] = _Session(
                    row[0], row[1], next_offset, size, latest, bool(row[3]), bool(row[4]), row[5]
                )
        if session is not None and session.draft and session.epoch != epoch:
            raise SessionImportingError.of(name)
        return session

    def _add(self, name: str, session: _Session, new_events: Sequence[NewEvent]) -> list[Event]:
        events: list[Event] = []
        for new in new_events:
            event = Event(session.next_offset, new.topic, new.body)
            events.append(event)
            session.latest = max(session.latest, unix(new.time))
            self._rows.append((session.id, event.offset, new.topic, new.body, session.bytes_before, session.latest))
            session.next_offset += 1
            session.bytes_before += len(new.body)
        if events and not session.draft:
            self._news.setdefault((name, session.epoch), News()).events += events
        return events

    def _publisher(self, session: _Session, name: str) -> _Publisher | None:
        publisher = session.publishers.get(name)
        if publisher is None:
            row = self._connection.execute(
                "SELECT id, attempt, owner, first_sequence, next_sequence, first_offset, next_offset FROM publishers"
                " JOIN publications ON publisher = id WHERE session = ? AND name = ?"
                " ORDER BY first_sequence DESC LIMIT 1",
                (session.id, name),
            ).fetchone()
            if row is not None:
                stretch, owner = Stretch(*row[3:]), Owner.parse(row[2])
                publisher = session.publishers[name] = _Publisher(row[0], row[1], stretch, owner)
                self._publishers += 1
        return publisher

    def _check_room(self, name: str, session: _Session, publication: Publication) -> None:
        if publication.owner is not None:
            owned = self._owned.of(session.id, session.epoch)
            check_room(name, publication.publisher, publication.owner, owned)

    def _advance(
        self, session: _Session, publisher: _Publisher | None, publication: Publication, plan: Plan, first_new: int
    ) -> _Publisher:
        first = publication.sequence + plan.there
        after = first + (publication.covers or session.next_offset - first_new)
        stretch = Stretch(first, after, first_new, session.next_offset)
        if publisher is None or plan.begins:
            publisher = self._begin_attempt(session, publisher, publication, stretch)
        elif not publisher.last.extend(stretch):
            publisher.last = stretch
        self._stretches[publisher.id, publisher.last.first_sequence] = publisher.last
        self._used_by(session, publisher, publication.owner)
        return publisher

    def _used_by(self, session: _Session, publisher: _Publisher, owner: Owner | None) -> None:
        """Store a publisher's owner if it had none, or if its owner's topics have changed."""
        if owner is not None and owner != publisher.owner:
            move(self._owned.of(session.id, session.epoch), publisher.owner, owner)
            self._connection.execute("UPDATE publishers SET owner = ? WHERE id = ?", (owner.text(), publisher.id))
            publisher.owner = owner

    def _end_earlier(self, name: str, session: _Session, publisher: _Publisher, publication: Publication) -> None:
        """Supersede the events of earlier attempts, or note that they stay valid."""
        self.flush()
        if not publication.supersedes:
            self._connection.execute(
                "INSERT INTO kept SELECT publisher, first_offset, next_offset, rough FROM publications"
                " WHERE publisher = ? AND next_offset > first_offset ON CONFLICT (publisher, first_offset) DO UPDATE"
                " SET next_offset = next_offset + excluded.next_offset - excluded.first_offset, rough = 1",
                (publisher.id,),
            )
            return
        stretches = self._connection.execute(
            "SELECT first_offset, next_offset FROM kept WHERE publisher = ?1 AND NOT rough"
            " UNION ALL SELECT first_offset, next_offset FROM publications WHERE publisher = ?1 AND NOT rough",
            (publisher.id,),
        ).fetchall()
        self._connection.execute("DELETE FROM kept WHERE publisher = ?", (publisher.id,))
        self._add(name, session, superseded(publication, stretches))

    def _begin_attempt(
        self, session: _Session, earlier: _Publisher | None, publication: Publication, stretch: Stretch
    ) -> _Publisher:
        if earlier is None:
            owner = publication.owner
            if owner is not None:
                move(self._owned.of(session.id, session.epoch), None, owner)
            row = self._connection.execute(
                "INSERT INTO publishers (session, name, attempt, owner) VALUES (?, ?, ?, ?)",
                (session.id, publication.publisher, publication.attempt, owner and owner.text()),
            )
            assert row.lastrowid is not None
            publisher = _Publisher(row.lastrowid, publication.attempt, stretch, owner)
            self._publishers += 1
            self._added += 1
        else:
            # The earlier attempt is refused from now on, so the offsets of its events are no longer needed for retries.
            self.flush()
            self._connection.execute("DELETE FROM publications WHERE publisher = ?", (earlier.id,))
            self._connection.execute(
                "UPDATE publishers SET attempt = ? WHERE id = ?", (publication.attempt, earlier.id)
            )
            publisher = _Publisher(earlier.id, publication.attempt, stretch, earlier.owner)
        session.publishers[publication.publisher] = publisher
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
            stretch = Stretch(*row)
        return stretch.offset_of(sequence)
