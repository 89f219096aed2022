"""An engine in this process's memory, which loses everything when the process ends."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Sequence
from heapq import nsmallest

from msgspec import UNSET, UnsetType

from wakeline.errors import SessionClosedError, SessionImportingError, SessionNotFoundError
from wakeline.events import Event, NewEvent, timestamp
from wakeline.gateway.log.names import check_epoch, in_ranges, name_ranges, new_epoch
from wakeline.gateway.log.owners import Owner, check_room, move
from wakeline.gateway.log.page import page_back, page_from
from wakeline.gateway.log.plan import begins, check_life, plan_append, superseded
from wakeline.gateway.log.ports import Engine
from wakeline.gateway.log.stretch import HeldPublisher, Stretch, published_at
from wakeline.gateway.log.values import (
    Append,
    Appended,
    NewSession,
    Opened,
    Page,
    Position,
    Publication,
    Published,
    Record,
    SessionState,
    check_record,
    check_revision,
    unix,
)


class _Session:
    def __init__(self, new: NewSession) -> None:
        self.epoch = new_epoch()
        self.created = timestamp()
        self.closed = new.closed
        self.order = ""
        self.draft = new.draft
        self.config = new.config
        self.deadline = new.deadline
        self.first_offset = new.first_offset
        self.size = 0
        self.events: list[Event] = []
        self.latest: list[int] = []  # for each event, the latest time up to it: it never decreases, unlike the times
        self.publishers: dict[str, HeldPublisher] = {}
        self.owned: Counter[str] = Counter()

    def begin(self, publication: Publication) -> list[Event]:
        """Begin another attempt, and supersede the events of earlier ones if it requests that.

        Returns:
            The `$attempt.superseded` events that were added; none if nothing is superseded.
        """
        earlier = self.publishers.get(publication.publisher)
        owner = publication.owner or (earlier.owner if earlier else None)
        move(self.owned, earlier.owner if earlier else None, owner)
        publisher = self.publishers[publication.publisher] = HeldPublisher(publication.attempt, owner)
        if earlier and not publication.supersedes:
            publisher.kept = earlier.ranges()
        elif earlier:
            return self.add(superseded(publication, earlier.offsets()))
        return []

    def used_by(self, publisher: HeldPublisher, owner: Owner | None) -> None:
        if owner is not None and owner != publisher.owner:
            move(self.owned, publisher.owner, owner)
            publisher.owner = owner

    @property
    def next_offset(self) -> int:
        return self.first_offset + len(self.events)

    def add(self, new_events: Sequence[NewEvent]) -> list[Event]:
        events = [Event(self.next_offset + i, e.topic, e.body) for i, e in enumerate(new_events)]
        self.events += events
        for new in new_events:
            time = unix(new.time)
            self.latest.append(max(time, self.latest[-1]) if self.latest else time)
        self.size += sum(len(event.body) for event in events)
        return events

    def remove_oldest(self, count: int) -> None:
        self.size -= sum(len(event.body) for event in self.events[:count])
        del self.events[:count]
        del self.latest[:count]
        self.first_offset += count


class MemoryEngine(Engine):
    """Stores everything in dictionaries; the smallest correct implementation of `Engine`."""

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
        held = self._visible(append.session, append.epoch)
        session = held or _Session(NewSession(append.session))
        publication, publisher = append.publication, None
        if publication is not None:
            publisher = session.publishers.get(publication.publisher)
        plan = plan_append(append, publisher.position if publisher else None, held)
        there = plan.there
        if publication is not None and publisher is None:
            check_room(append.session, publication.publisher, publication.owner, session.owned)
        withdrawn = session.begin(publication) if plan.begins and plan.advances and publication is not None else []
        if plan.advances and publisher is None:
            self.counts.publishers(1)
        first_new = session.next_offset
        events = session.add(append.events[there:])
        session.closed |= plan.closes
        if events or plan.advances or plan.closes:
            session.order = plan.order
            self._sessions[append.session] = session
        if plan.advances and publication is not None:
            publisher = session.publishers[publication.publisher]
            first = publication.sequence + there
            after = first + (publication.covers or len(events))
            publisher.add(Stretch(first, after, first_new, session.next_offset))
            session.used_by(publisher, publication.owner)
        if not session.draft:
            self.feed.announce(append.session, session.epoch, withdrawn + events, ["closed"] if plan.closes else [])
        if not there or not append.events or publication is None or publisher is None:
            return Appended(first_new, session.next_offset, session.epoch, duplicate=plan.duplicate)
        first = publisher.offset_of(publication.sequence)
        after = publisher.offset_of(publication.sequence + (publication.covers or len(append.events)) - 1) + 1
        return Appended(first, after, session.epoch, duplicate=not events)

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        held, created = self._visible(session), False
        known = held.publishers.get(publication.publisher) if held is not None else None
        position = known.position if known is not None else None
        check_life(session, held.epoch if held is not None else None, epoch, position)
        if held is None:
            held, created = _Session(NewSession(session)), True
        beginning = begins(position, publication)
        if beginning and held.closed:
            raise SessionClosedError(f"expected an open session, {session!r} is closed")
        if position is None:
            check_room(session, publication.publisher, publication.owner, held.owned)
        self._sessions[session] = held
        withdrawn = held.begin(publication) if beginning else []
        if position is None:
            self.counts.publishers(1)
        publisher = held.publishers[publication.publisher]
        held.used_by(publisher, publication.owner)
        self.feed.announce(session, held.epoch, withdrawn, ["configured"] if created else [])
        earlier = sum(after - first for first, after, _ in publisher.kept)
        return Opened(publisher.position.attempt, publisher.position.next_sequence, earlier, held.epoch)

    async def read(
        self,
        session: str,
        offset: int,
        *,
        before: int,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        held = self._session(session, epoch)
        began = max(offset, min(held.first_offset, before))
        at = max(began, held.first_offset) - held.first_offset
        return page_from(held.events[at : min(max(before - held.first_offset, 0), at + limit)], began, topics)

    async def read_back(
        self,
        session: str,
        before: int,
        *,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        held = self._session(session, epoch)
        places = reversed(range(max(0, min(before - held.first_offset, len(held.events)))))
        return page_back((held.events[at] for at in places), before, limit, topics)

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        held = self._sessions.get(session)
        if held is None or held.draft:
            return None
        found = None if publisher is None else held.publishers.get(publisher)
        return self._state(session, held, found.position if found else None)

    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        ranges = name_ranges(within)
        found = (name for name, held in self._sessions.items() if name > after and not held.draft)
        names = sorted(name for name in found if in_ranges(name, ranges))[:limit]
        return [self._state(name, self._sessions[name]) for name in names]

    async def newest(
        self, *, before: tuple[str, str] | None, limit: int, within: Sequence[str], contains: str
    ) -> list[SessionState]:
        states = await self.sessions(limit=len(self._sessions), within=within)
        aged = (((state.created, state.session), state) for state in states if contains in state.session)
        return [state for age, state in sorted(aged, reverse=True) if before is None or age < before][:limit]

    async def create_session(self, new: NewSession) -> tuple[SessionState, bool]:
        session, held = new.session, self._visible(new.session)
        if held is not None:
            return self._state(session, held), False
        held = self._sessions[session] = _Session(new)
        added = held.add(new.events)
        if not new.draft:
            self.feed.announce(session, held.epoch, added, ["configured"])
        return self._state(session, held), True

    async def configure(
        self,
        session: str,
        *,
        epoch: str,
        config: bytes | UnsetType = UNSET,
        deadline: float | UnsetType | None = UNSET,
        finish: bool = False,
    ) -> None:
        held = self._session(session, epoch)
        if config is not UNSET:
            held.config = config
        if deadline is not UNSET:
            held.deadline = deadline
        if finish:
            held.draft = False
        if (finish or config is not UNSET) and not held.draft:
            self.feed.announce(session, epoch, changes=["configured"])

    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        found = [
            (held.deadline, name, held.epoch)
            for name, held in self._sessions.items()
            if held.deadline is not None and held.deadline <= now
        ]
        return [(name, epoch) for _, name, epoch in sorted(found)[:limit]]

    async def delete_session(self, session: str, *, epoch: str | None = None, draft: bool = False) -> bool:
        held = self._sessions.get(session)
        if held is None or epoch not in (None, held.epoch) or held.draft != draft:
            return False
        del self._sessions[session]
        if not held.draft:
            self.feed.announce(session, held.epoch, changes=["deleted"])
        return True

    async def forget_publisher(self, session: str, publisher: str, *, epoch: str) -> None:
        held = self._session(session, epoch)
        if (forgotten := held.publishers.pop(publisher, None)) is not None:
            move(held.owned, forgotten.owner, None)

    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        held = self._session(session, epoch)
        count = max(0, min(before - held.first_offset, limit, len(held.events)))
        if count:
            held.remove_oldest(count)
            self.feed.announce(session, epoch, changes=["trimmed"])
        return held.first_offset

    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        held = self._session(session, epoch)
        over, offset = held.size - size, held.first_offset
        for event in held.events:
            if over <= 0:
                break
            over -= len(event.body)
            offset += 1
        return offset

    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        held = self._session(session, epoch)
        return held.first_offset + bisect_left(held.latest, moment)

    async def published(self, session: str, offset: int, *, epoch: str) -> Published | None:
        return published_at(offset, self._session(session, epoch).publishers)

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        return {key: self._records[key] for key in keys if key in self._records}

    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        check_record(key, value)
        record = self._records.get(key)
        check_revision(key, value, revision, record.revision if record else 0)
        if value is None:
            del self._records[key]
            return 0
        self._revision += 1
        self._records[key] = Record(key, value, self._revision)
        return self._revision

    async def records_after(self, key: str, *, prefix: str = "", limit: int | None = 100) -> list[Record]:
        most = len(self._records) if limit is None else limit
        keys = nsmallest(most, (each for each in self._records if each > key and each.startswith(prefix)))
        return [self._records[each] for each in keys]

    async def count_records(self, prefix: str) -> tuple[int, int]:
        sizes = [len(record.value) for key, record in self._records.items() if key.startswith(prefix)]
        return len(sizes), sum(sizes)

    def _session(self, name: str, epoch: str | None = None) -> _Session:
        if (held := self._sessions.get(name)) is None or (held.draft and epoch != held.epoch):
            raise SessionNotFoundError(f"there is no session {name!r}")
        check_epoch(name, held.epoch, epoch)
        return held

    def _visible(self, name: str, epoch: str | None = None) -> _Session | None:
        """Return the session; None if there is none.

        Raises:
            SessionImportingError: It is a draft of another epoch than the caller's.
        """
        held = self._sessions.get(name)
        if held is not None and held.draft and epoch != held.epoch:
            raise SessionImportingError.of(name)
        return held

    @staticmethod
    def _state(name: str, held: _Session, position: Position | None = None) -> SessionState:
        return SessionState(
            name,
            held.epoch,
            held.next_offset,
            held.created,
            held.closed,
            held.first_offset,
            held.size,
            held.config,
            held.deadline,
            position,
        )
