"""The parts of sessions' positions that are in use: what is stored of them, and who is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from wakeline.errors import EpochChangedError, RecordConflictError, SessionNotFoundError
from wakeline.gateway.devices.records import Entry, Key, decode, encode, forget_over, now, record_key
from wakeline.gateway.log import Engine
from wakeline.gateway.runtime import Grouped

OffsetOf: TypeAlias = Callable[[], int]
"""Tells the first offset that has not been written to a connection."""

Change: TypeAlias = Callable[[dict[Key, Entry]], object]
"""Changes a part's entries. It may be called again, on newer ones."""


class DeviceLimit(NamedTuple):
    """How many devices are remembered of one user in a session.

    Attributes:
        user_devices: The most; 0 for no limit.
        counted: Called with the numbers of devices that a write has added, and has forgotten for the limits.
    """

    user_devices: int
    counted: Callable[[int, int], object]


class Part:
    """One of the records of a session's life, and those of its devices that are connected here.

    Attributes:
        entries: What the record held when it was last read or written here.
        connections: Of each device, what tells how far its connections are.
        left: What is still to be stored of connections that have ended.
        users: How many use this object now.
    """

    def __init__(self, engine: Engine, session: str, epoch: str, number: int, limit: DeviceLimit) -> None:
        self.session = session
        self.epoch = epoch
        self.number = number
        self.entries: dict[Key, Entry] = {}
        self.connections: dict[Key, list[OffsetOf]] = {}
        self.left: dict[Key, Entry] = {}
        self.users = 0
        self._engine = engine
        self._limit = limit
        self._record = record_key(session, number)
        self._revision = 0
        self._stale = True
        self._over = False
        self._waiting: list[Change] = []
        self._writes = Grouped[None]()

    def connect(self, key: Key, offset_of: OffsetOf) -> None:
        """One of a device's connections is there."""
        self.connections.setdefault(key, []).append(offset_of)

    def disconnect(self, key: Key, offset_of: OffsetOf) -> None:
        """It is there no more; what was written to it is to be stored."""
        offsets = self.connections[key]
        offsets.remove(offset_of)
        if not offsets:
            del self.connections[key]
        self.note(Entry(*key, delivered=offset_of(), seen=None, active=now()))

    def note(self, entry: Entry) -> None:
        """Keep what is to be stored with the next `save`."""
        self.left[entry.key] = entry.merged(self.left.get(entry.key))

    def latest(self, key: Key) -> Entry | None:
        """A device as it is now: stored or still to be stored."""
        entry = self.left.get(key)
        offsets = self.connections.get(key)
        if offsets:
            entry = Entry(*key, _furthest(offsets), None, now()).merged(entry)
        known = self.entries.get(key)
        return entry.merged(known) if entry else known

    def unsaved(self, *, every: bool = False) -> list[Entry]:
        """What was delivered and is not stored; with `every`, what was delivered to all that are connected."""
        current = now()
        found = list(self.left.values())
        for key, offsets in self.connections.items():
            offset, known = _furthest(offsets), self.entries.get(key)
            if every or known is None or known.delivered is None or known.delivered < offset:
                found.append(Entry(*key, offset, None, current))
        return found

    async def save(self, unsaved: list[Entry]) -> None:
        """Store what `unsaved` has told; returns when it is durable.

        Raises:
            UnavailableError: It could not be stored; it is kept for the next time.
        """
        if not unsaved:
            return

        def add(entries: dict[Key, Entry]) -> None:
            for entry in unsaved:
                entries[entry.key] = entry.merged(entries.get(entry.key))

        try:
            await self.change(add)
        except (SessionNotFoundError, EpochChangedError):
            self.left.clear()  # that life of the session is over
            return
        for entry in unsaved:
            if self.left.get(entry.key) is entry:  # else more has come meanwhile
                del self.left[entry.key]

    async def change(self, change: Change, *, fresh: bool = False) -> None:
        """Apply a change; returns when it is durable. All that come during one write go into the next.

        Args:
            change: What to do with the entries.
            fresh: It depends on which there are: read what others may have written first.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: It was deleted and created again.
            UnavailableError: It could not be stored, or may not have been.
        """
        self._stale = self._stale or fresh
        self._waiting.append(change)
        try:
            await self._writes.do(self._write_waiting)
        except asyncio.CancelledError:
            await self._writes.idle()  # it is used until then: who ends it must find it
            raise

    async def end(self) -> None:
        """Store nothing more: that life of the session is over. Waits for what is being stored."""
        self._over = True
        self.left.clear()
        await self._writes.idle()

    async def _write_waiting(self) -> None:
        changes, self._waiting = self._waiting, []
        while True:
            if self._stale:
                await self._read()
            entries = dict(self.entries)
            for change in changes:
                change(entries)
            if entries == self.entries or await self._put(entries):
                return

    async def _read(self) -> None:
        self._stale = False  # who asks for a fresh one from here on gets another
        try:
            record = await self._engine.get_record(self._record)
            entries = decode(record, self.epoch)
            if entries is None:
                await self._check_epoch()
        except BaseException:
            self._stale = True
            raise
        self.entries, self._revision = entries or {}, record.revision if record else 0

    async def _put(self, entries: dict[Key, Entry]) -> bool:
        """Write the record; False if somebody else has."""
        if self._over:
            raise SessionNotFoundError(f"there is no session {self.session!r}")
        wanted = set(entries)
        try:
            forget_over(entries, self._limit.user_devices)
            value = encode(self.epoch, entries)
            record = await self._engine.put_record(self._record, value, revision=self._revision)
        except BaseException as error:
            self._stale = True  # only the engine knows what is stored now
            if isinstance(error, RecordConflictError):
                return False
            raise
        self._limit.counted(len(entries.keys() - self.entries.keys()), len(wanted - entries.keys()))
        self.entries, self._revision = entries, record.revision
        return True

    async def _check_epoch(self) -> None:
        """Before a record is begun: one of a life that is over would be read by nobody, and never be erased."""
        state = await self._engine.state(self.session)
        if state is None:
            raise SessionNotFoundError(f"there is no session {self.session!r}")
        if state.epoch != self.epoch:
            raise EpochChangedError(f"the session now lives in epoch {state.epoch}, not in {self.epoch}")


class Parts:
    """The parts that are in use: one object each, however many use it."""

    def __init__(self, engine: Engine, limit: DeviceLimit) -> None:
        self._engine = engine
        self._limit = limit
        self._parts: dict[tuple[str, str, int], Part] = {}

    def __iter__(self) -> Iterator[Part]:
        """All of them, as they are now."""
        return iter(list(self._parts.values()))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._parts)

    def get(self, session: str, epoch: str, number: int) -> Part | None:
        """A part, if it is in use."""
        return self._parts.get((session, epoch, number))

    def take(self, session: str, epoch: str, number: int) -> Part:
        """Begin to use a part."""
        part = self.get(session, epoch, number)
        if part is None:
            part = self._parts[session, epoch, number] = Part(self._engine, session, epoch, number, self._limit)
        part.users += 1
        return part

    def give_back(self, part: Part) -> None:
        """End to use it. It is kept for as long as somebody else does, or it has something to save."""
        part.users -= 1
        if part.users == 0 and not part.left:
            del self._parts[part.session, part.epoch, part.number]

    @contextmanager
    def using(self, session: str, epoch: str, number: int) -> Iterator[Part]:
        """Use a part for as long as the block lasts."""
        part = self.take(session, epoch, number)
        try:
            yield part
        finally:
            self.give_back(part)


def _furthest(offsets: list[OffsetOf]) -> int:
    return offsets[0]() if len(offsets) == 1 else max(offset_of() for offset_of in offsets)
