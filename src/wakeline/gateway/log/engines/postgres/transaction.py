"""One transaction of a writer: the sessions that it holds, and the rows that it will write.

The rows of all sessions of a transaction are locked first, in the order of their names, and then the records, in the order of
their keys. So no two transactions wait for each other, whichever gateways run them. New sessions are inserted at the end, in the
order of their names. Rows are collected and written with one statement.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from wakeline.errors import SessionImportingError
from wakeline.events import Event, NewEvent, timestamp
from wakeline.gateway.log.engines.postgres import statements as sql
from wakeline.gateway.log.engines.postgres.target import Connection
from wakeline.gateway.log.names import new_epoch
from wakeline.gateway.log.owners import Owner
from wakeline.gateway.log.stretch import Stretch
from wakeline.gateway.log.values import Change, NewSession, Position, check_revision, unix

_IDS: Final = 32

Life: TypeAlias = tuple[str, str]
"""A session's name and its epoch."""


class RepeatError(Exception):
    """The transaction has not committed and must be repeated.

    Another gateway has created one of its rows, or the connection was lost before the commit.
    """


@dataclass(slots=True)
class Publisher:
    """A publisher of a session, and the last stretch of its attempt."""

    id: int
    name: str
    attempt: int
    last: Stretch
    owner: Owner | None

    @property
    def position(self) -> Position:
        return Position(self.attempt, self.last.next_sequence, self.owner)


@dataclass(slots=True)
class Held:
    """A session whose row this transaction has locked, or will insert.

    Attributes:
        publishers: Its publishers by name, as far as they were read; None for one that it does not have.
        exists: Whether its row is in the table.
    """

    id: int
    name: str
    epoch: str
    created: str
    version: int
    first_offset: int
    next_offset: int
    bytes_begin: int
    bytes_end: int
    latest: int
    closed: bool
    draft: bool
    order: str
    config: bytes = b""
    deadline: float | None = None
    publishers: dict[str, Publisher | None] = field(default_factory=dict)
    exists: bool = True


@dataclass(slots=True)
class News:
    """The events and changes of one life of a session in a transaction.

    Attributes:
        begins: Whether the life begins in it.
        next_offset: The session's end after it.
    """

    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    begins: bool = False
    next_offset: int = 0


class Memory:
    """The knowledge that a writer carries from one transaction to the next.

    Attributes:
        publishers: By session: its id, its version, and its publishers.
        ids: Numbers that no row has.
    """

    MOST = 20_000

    def __init__(self) -> None:
        self.publishers: dict[str, tuple[int, int, dict[str, Publisher | None]]] = {}
        self.ids: list[int] = []

    def forget(self) -> None:
        """Drop everything, after a rollback or a lost connection: the tables have the state.

        A server that has crashed may hand out again the numbers that no committed row has.
        """
        self.publishers.clear()
        self.ids.clear()

    def learn(self, sessions: Sequence[Held]) -> None:
        """Remember the publishers of sessions after a commit."""
        if len(self.publishers) + len(sessions) > self.MOST:
            self.publishers.clear()
        for session in sessions:
            if len(session.publishers) <= self.MOST:
                self.publishers[session.name] = (session.id, session.version, session.publishers)


class RecordChanges:
    """The changes of records in one transaction, which are written together at its end.

    Args:
        connection: It has begun the transaction.
        locked: The revisions of the locked records by key.
    """

    def __init__(self, connection: Connection, locked: Mapping[str, int]) -> None:
        self._before = locked
        self._now = dict(locked)
        self._revisions: list[int] = []
        self._values: dict[str, bytes | None] = {}
        self._connection = connection

    async def change(self, key: str, value: bytes | None, revision: int) -> int:
        """Change a record; see `Records.change_record`."""
        check_revision(key, value, revision, self._now.get(key, 0))
        self._values[key] = value
        if value is None:
            del self._now[key]
            return 0
        if not self._revisions:
            self._revisions = [row[0] for row in await self._connection.fetch(sql.REVISIONS, 20)][::-1]
        self._now[key] = self._revisions.pop()
        return self._now[key]

    async def flush(self) -> None:
        """Write the changes.

        Raises:
            RepeatError: Another gateway has created one of the records.
        """
        if not self._values:
            return
        removed, changed, new = list[str](), list[tuple[str, bytes, int]](), list[tuple[str, bytes, int]]()
        for key, value in sorted(self._values.items()):
            if value is not None:
                (changed if key in self._before else new).append((key, value, self._now[key]))
            elif key in self._before:
                removed.append(key)
        columns = [list(zip(*rows, strict=True)) if rows else [()] * 3 for rows in (changed, new)]
        inserted = await self._connection.fetchval(sql.WRITE_RECORDS, removed, *columns[0], *columns[1])
        if inserted != len(new):
            raise RepeatError("another gateway has created one of the records")


class Transaction:
    """The sessions and rows of the current transaction.

    Args:
        connection: It has begun the transaction.
        memory: What is known from earlier ones.

    Attributes:
        news: The new events and changes, by life.
        added: Publishers that are new.
        merged: Rows of stretches that were merged into an earlier one.
        records: The changes of the locked records.
    """

    def __init__(self, connection: Connection, memory: Memory) -> None:
        self.connection = connection
        self.news: dict[Life, News] = {}
        self.added = self.merged = 0
        self.records = RecordChanges(connection, {})
        self._memory = memory
        self._sessions: dict[str, Held | None] = {}
        self._changed: dict[int, Held] = {}
        self._events: list[tuple[int, int, str, bytes, int, int]] = []
        self._publishers: dict[int, tuple[int, Publisher]] = {}
        self._stretches: dict[tuple[int, int], Stretch] = {}

    async def lock(
        self,
        names: Sequence[str],
        publishers: Sequence[tuple[str, str]],
        keys: Sequence[str],
        *,
        writer: str,
        token: int,
    ) -> None:
        """Lock the rows of sessions and records, and read the publishers that are not known.

        Args:
            names: The sessions.
            publishers: Pairs of a session and a publisher.
            keys: The records.
            writer: The name of the writer.
            token: The number of the transaction, which it leaves in the writer's row.
        """
        if names:
            rows = await self.connection.fetch(sql.LOCK, sorted(set(names)), writer, token)
            self._sessions = dict.fromkeys(names)
            for row in rows:
                held = self._sessions[row["name"]] = Held(*row)
                id_, version, known = self._memory.publishers.get(held.name, (0, 0, {}))
                if (id_, version) == (held.id, held.version):
                    held.publishers = known
            await self._read_publishers(publishers)
        if keys:
            rows = await self.connection.fetch(sql.LOCK_RECORDS, sorted(set(keys)), writer, token)
            self.records = RecordChanges(self.connection, {row[0]: row[1] for row in rows})
        needed = len(names) + len(publishers)
        if len(self._memory.ids) < needed:
            rows = await self.connection.fetch(sql.IDS, needed + _IDS)
            self._memory.ids += [row[0] for row in rows]

    async def _read_publishers(self, wanted: Sequence[tuple[str, str]]) -> None:
        pairs = {
            (held.id, name): held
            for session, name in wanted
            if (held := self._sessions[session]) is not None and name not in held.publishers
        }
        if not pairs:
            return
        sessions, names = zip(*pairs, strict=True)
        for row in await self.connection.fetch(sql.PUBLISHERS, sessions, names):
            session, name, id_, attempt, owner, *stretch = row
            found = None if id_ is None else Publisher(id_, name, attempt, Stretch(*stretch), Owner.parse(owner))
            pairs[session, name].publishers[name] = found

    def session(self, name: str, epoch: str | None = None) -> Held | None:
        """Return a session; None if there is none.

        Raises:
            SessionImportingError: It is a draft of another epoch than the caller's.
        """
        held = self._sessions[name]
        if held is not None and held.draft and held.epoch != epoch:
            raise SessionImportingError.of(name)
        return held

    def any_session(self, name: str) -> Held | None:
        """Return a session or draft; None if there is none."""
        return self._sessions[name]

    def create(self, new: NewSession) -> Held:
        """Create a session that does not exist; its row is inserted with the next `flush`."""
        first = new.first_offset
        held = Held(
            self.new_id(), new.session, new_epoch(), timestamp(), 0, first, first, 0, 0, 0, new.closed, new.draft, "",
            new.config, new.deadline, exists=False,
        )  # fmt: skip
        self._sessions[new.session] = held
        self.touch(held)
        if not new.draft:
            self._news(held).begins = True
        return held

    def new_id(self) -> int:
        """Return a number that no row has."""
        return self._memory.ids.pop()

    def touch(self, held: Held) -> None:
        """Write the session's row with the next `flush`."""
        if held.id not in self._changed:
            held.version = random.getrandbits(62)
            self._changed[held.id] = held

    def add(self, held: Held, new_events: Sequence[NewEvent]) -> int:
        """Append events to a session; return how many."""
        events: list[Event] = []
        for new in new_events:
            event = Event(held.next_offset, new.topic, new.body)
            events.append(event)
            held.latest = max(held.latest, unix(new.time))
            self._events.append((held.id, event.offset, new.topic, new.body, held.bytes_end, held.latest))
            held.next_offset += 1
            held.bytes_end += len(new.body)
        if events:
            self.touch(held)
            if not held.draft:
                news = self._news(held)
                news.events += events
                news.next_offset = held.next_offset
        return len(events)

    def put(self, held: Held, publisher: Publisher) -> None:
        """Write a publisher's row with the next `flush`."""
        held.publishers[publisher.name] = publisher
        self._publishers[publisher.id] = (held.id, publisher)
        self.touch(held)

    def put_stretch(self, held: Held, publisher: Publisher) -> None:
        """Write a publisher's last stretch with the next `flush`."""
        self._stretches[publisher.id, publisher.last.first_sequence] = publisher.last
        self.touch(held)

    def changed(self, held: Held, change: Change) -> None:
        """Add a change of a session to the news."""
        if change == "deleted":
            self.news.pop(
                (held.name, held.epoch), None
            )  # no reader can have seen the transaction's other changes of it
        self._news(held).changes.append(change)

    def _news(self, held: Held) -> News:
        news = self.news.get((held.name, held.epoch))
        if news is None:
            news = self.news[held.name, held.epoch] = News(next_offset=held.next_offset)
        return news

    async def flush(self) -> None:
        """Write the collected rows, but not yet the records.

        Raises:
            RepeatError: Another gateway has created one of the sessions.
        """
        new = sorted((h for h in self._changed.values() if not h.exists), key=lambda held: held.name.encode())
        old = [held for held in self._changed.values() if held.exists]
        if not (new or old):
            return
        inserted = await self.connection.fetchval(
            sql.FLUSH,
            *_columns(15, [_row(held) for held in new]),
            *_columns(7, [
                (h.id, h.version, h.next_offset, h.bytes_end, h.latest, h.closed, h.order) for h in old
            ]),
            *_columns(6, self._events),
            *_columns(6, [
                (p.id, session, p.name, p.attempt, p.owner and p.owner.text(), p.owner and p.owner.name)
                for session, p in self._publishers.values()
            ]),
            *_columns(5, [
                (publisher, s.first_sequence, s.next_sequence, s.first_offset, s.next_offset)
                for (publisher, _), s in self._stretches.items()
            ]),
        )  # fmt: skip
        if inserted != len(new):
            raise RepeatError("another gateway has created one of the sessions")
        for held in new:
            held.exists = True
        self._changed.clear()
        self._events.clear()
        self._publishers.clear()
        self._stretches.clear()

    async def delete(self, held: Held) -> None:
        """Delete a session; its other rows are erased later."""
        await self.flush()
        await self.connection.execute(sql.DELETE, held.id)
        self._sessions[held.name] = None

    def committed(self) -> None:
        """Remember what the transaction has read and written."""
        self._memory.learn([held for held in self._sessions.values() if held is not None])


def _row(held: Held) -> tuple[Any, ...]:
    return (
        held.id, held.name, held.epoch, held.created, held.version, held.first_offset, held.next_offset, held.bytes_begin,
        held.bytes_end, held.latest, held.closed, held.draft, held.order, held.config, held.deadline,
    )  # fmt: skip


def _columns(count: int, rows: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
    """Return rows as arrays, one for each of `count` columns."""
    return list(zip(*rows, strict=True)) if rows else [()] * count
