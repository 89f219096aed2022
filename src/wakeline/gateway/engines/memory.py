"""Sessions in this process's memory: a real engine that forgets everything when the process ends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container

from wakeline.errors import RecordConflictError, SessionClosedError, SessionNotFoundError
from wakeline.events import Event, timestamp
from wakeline.gateway.log import (
    PAGE_BYTES,
    Append,
    Appended,
    Engine,
    Page,
    Position,
    Publication,
    Record,
    SessionState,
    already_there,
    new_epoch,
)


class _Publisher:
    """One publisher's position, and where each stretch of its sequences stands in the log."""

    def __init__(self, attempt: int) -> None:
        self.position = Position(attempt, 0)
        self.starts: list[int] = []  # first sequence of each append
        self.offsets: list[tuple[int, int]] = []  # that append's first and next offset

    def add(self, publication: Publication, there: int, first_offset: int, next_offset: int) -> None:
        count = publication.covers or there + next_offset - first_offset
        self.starts.append(publication.sequence + (0 if publication.covers else there))
        self.offsets.append((first_offset, next_offset))
        self.position = Position(publication.attempt, publication.sequence + count)

    def offset_of(self, sequence: int) -> int:
        index = bisect_right(self.starts, sequence) - 1
        first, after = self.offsets[index]
        return min(first + sequence - self.starts[index], after - 1)


class _Session:
    def __init__(self) -> None:
        self.epoch = new_epoch()
        self.created = timestamp()
        self.closed = False
        self.events: list[Event] = []
        self.publishers: dict[str, _Publisher] = {}


class MemoryEngine(Engine):
    """Keeps everything in dictionaries; the smallest correct reading of `Engine`."""

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[str, _Session] = {}
        self._records: dict[str, Record] = {}
        self._revision = 0

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def append(self, append: Append) -> Appended:
        session = self._sessions.get(append.session) or _Session()
        if session.closed:
            raise SessionClosedError(f"expected an open session, {append.session!r} is closed")
        there, publication = 0, append.publication
        publisher: _Publisher | None = None
        if publication is not None:
            publisher = session.publishers.get(publication.publisher)
            there = already_there(publisher.position if publisher else None, publication, len(append.events))
            if publisher is None or publisher.position.attempt != publication.attempt:
                publisher = _Publisher(publication.attempt)
        first_new = len(session.events)
        events = [Event(first_new + i, e.topic, e.body) for i, e in enumerate(append.events[there:])]
        if events:
            self._sessions[append.session] = session
            session.events += events
            if publication is not None and publisher is not None:
                session.publishers[publication.publisher] = publisher
                publisher.add(publication, there, first_new, len(session.events))
            self._committed(append.session, events)
        if not there or publication is None or publisher is None:
            return Appended(first_new, len(session.events), session.epoch)
        first = publisher.offset_of(publication.sequence)
        after = publisher.offset_of(publication.sequence + (publication.covers or len(append.events)) - 1) + 1
        return Appended(first, after, session.epoch, duplicate=not events)

    async def read(
        self, session: str, offset: int, *, before: int, limit: int = 1000, topics: Container[str] | None = None
    ) -> Page:
        held = self._session(session)
        taken: list[Event] = []
        size = 0
        for event in held.events[offset : min(before, offset + limit)]:
            if size >= PAGE_BYTES:
                break
            size += len(event.body)
            taken.append(event)
        after = taken[-1].offset + 1 if taken else offset
        return Page([e for e in taken if topics is None or e.topic in topics], after)

    async def state(self, session: str) -> SessionState | None:
        held = self._sessions.get(session)
        return self._state(session, held) if held else None

    async def position(self, session: str, publisher: str) -> Position | None:
        held = self._sessions.get(session)
        found = held.publishers.get(publisher) if held else None
        return found.position if found else None

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[SessionState]:
        names = sorted(name for name in self._sessions if name > after)[:limit]
        return [self._state(name, self._sessions[name]) for name in names]

    async def close_session(self, session: str) -> None:
        self._session(session).closed = True

    async def delete_session(self, session: str) -> bool:
        return self._sessions.pop(session, None) is not None

    async def get_record(self, key: str) -> Record | None:
        return self._records.get(key)

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        self._check_revision(key, revision)
        self._revision += 1
        record = self._records[key] = Record(key, value, self._revision)
        return record

    async def delete_record(self, key: str, *, revision: int) -> None:
        self._check_revision(key, revision)
        if self._records.pop(key, None) is None:
            raise RecordConflictError(f"expected a record under {key!r}, there is none")

    async def records(self, prefix: str) -> list[Record]:
        return [record for key, record in sorted(self._records.items()) if key.startswith(prefix)]

    def _session(self, name: str) -> _Session:
        if name not in self._sessions:
            raise SessionNotFoundError(f"there is no session {name!r}")
        return self._sessions[name]

    def _check_revision(self, key: str, revision: int) -> None:
        record = self._records.get(key)
        now = record.revision if record else 0
        if now != revision:
            raise RecordConflictError(f"expected {key!r} at revision {revision}, it is at {now}")

    @staticmethod
    def _state(name: str, held: _Session) -> SessionState:
        return SessionState(name, held.epoch, len(held.events), held.created, held.closed)
