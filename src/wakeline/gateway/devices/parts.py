"""Parts: the records of positions that are in use, with the connected devices of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from wakeline.errors import EpochChangedError, RecordConflictError, SessionNotFoundError
from wakeline.gateway.devices.records import Entry, Key, decode, encode, forget_over, now, record_key
from wakeline.gateway.log import Engine, Record
from wakeline.gateway.runtime import Grouped

OffsetOf: TypeAlias = Callable[[], int]
"""Returns the first offset that has not been written to a connection."""


class Connection(NamedTuple):
    """A connection of a device.

    Attributes:
        offset_of: Returns the first offset that has not been written to it.
        transport: The name of its transport.
    """

    offset_of: OffsetOf
    transport: str


Change: TypeAlias = Callable[[dict[Key, Entry]], object]
"""Changes a part's entries in place. It may run again, on newer entries, if another gateway wrote first."""


class DeviceLimit(NamedTuple):
    """The greatest number of devices that are remembered for one user in a session.

    Attributes:
        user_devices: The greatest number; 0 for no limit.
        counted: Called after each write with the number of devices added and the number forgotten.
    """

    user_devices: int
    counted: Callable[[int, int], object]


class Part:
    """One record of a session's positions, and the connected devices that belong in it.

    The event loop owns this state. Writes go through `_writes`, one at a time; changes that arrive during a write are
    applied together by the next one.

    Attributes:
        entries: The record's entries as of the last read or write by this process.
        connections: The connections of each connected device.
        left: Entries of ended connections that are not stored yet.
        users: How many callers use this object now.
    """

    def __init__(self, engine: Engine, session: str, epoch: str, number: int, limit: DeviceLimit) -> None:
        self.session = session
        self.epoch = epoch
        self.number = number
        self.entries: dict[Key, Entry] = {}
        self.connections: dict[Key, list[Connection]] = {}
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

    def connect(self, key: Key, connection: Connection) -> None:
        """Register a connection of a device."""
        self.connections.setdefault(key, []).append(connection)

    def disconnect(self, key: Key, connection: Connection) -> None:
        """Remove a connection, and keep the offset it had reached for the next `save`."""
        connections = self.connections[key]
        connections.remove(connection)
        if not connections:
            del self.connections[key]
        self.note(Entry(*key, delivered=connection.offset_of(), seen=None, active=now()))

    def note(self, entry: Entry) -> None:
        """Keep an entry for the next `save`."""
        self.left[entry.key] = entry.merged(self.left.get(entry.key))

    def latest(self, key: Key) -> Entry | None:
        """Return a device's current entry, stored or not; None if the device is unknown."""
        entry = self.left.get(key)
        connections = self.connections.get(key)
        if connections:
            entry = Entry(*key, _furthest(connections), None, now()).merged(entry)
        known = self.entries.get(key)
        return entry.merged(known) if entry else known

    def unsaved(self, *, every: bool = False) -> list[Entry]:
        """Return delivered offsets that are not stored; with `every`, of all connected devices."""
        current = now()
        found = list(self.left.values())
        for key, connections in self.connections.items():
            offset, known = _furthest(connections), self.entries.get(key)
            if every or known is None or known.delivered is None or known.delivered < offset:
                found.append(Entry(*key, offset, None, current))
        return found

    async def save(self, unsaved: list[Entry]) -> None:
        """Store the entries that `unsaved` returned; return when they are durable.

        Raises:
            UnavailableError: They could not be stored; they are kept for the next `save`.
        """
        if not unsaved:
            return

        def add(entries: dict[Key, Entry]) -> None:
            for entry in unsaved:
                entries[entry.key] = entry.merged(entries.get(entry.key))

        try:
            await self.change(add)
        except (SessionNotFoundError, EpochChangedError):
            self.left.clear()  # the session was deleted, so its positions have no reader
            return
        for entry in unsaved:
            if self.left.get(entry.key) is entry:  # a newer entry that arrived during the write stays
                del self.left[entry.key]

    async def change(self, change: Change, *, fresh: bool = False) -> None:
        """Apply a change; return when it is durable.

        The next write applies all changes that arrive during one.

        Args:
            change: Changes the entries.
            fresh: Read the record first: a change to all entries must see those that other gateways wrote.

        Raises:
            SessionNotFoundError: The session was deleted.
            EpochChangedError: The session was deleted and created again.
            UnavailableError: The change could not be stored, or its outcome is unknown.
        """
        self._stale = self._stale or fresh
        self._waiting.append(change)
        try:
            await self._writes.do(self._write_waiting)
        except asyncio.CancelledError:
            await self._writes.idle()  # `Positions.forget_session` finds this part only while the caller uses it
            raise

    async def end(self) -> None:
        """Refuse further writes, because the session was deleted; wait for the write under way."""
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
        self._stale = False  # before the read: a caller that asks for a fresh one during it gets another read
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
        """Write the record; return False if another gateway wrote it first."""
        if self._over:
            raise SessionNotFoundError(f"there is no session {self.session!r}")
        wanted = set(entries)
        try:
            forget_over(entries, self._limit.user_devices)
            value = encode(self.epoch, entries)
            record = await self._engine.put_record(self._record, value, revision=self._revision)
        except BaseException as error:
            self._stale = True  # the write may have happened or not; only the engine knows
            if isinstance(error, RecordConflictError):
                return False
            raise
        if not self._revision:
            await self._check_kept(record)
        self._limit.counted(len(entries.keys() - self.entries.keys()), len(wanted - entries.keys()))
        self.entries, self._revision = entries, record.revision
        return True

    async def _check_kept(self, record: Record) -> None:
        """Raise if the session was deleted while its first record was written, and remove that."""
        try:
            await self._check_epoch()
        except (SessionNotFoundError, EpochChangedError):
            await self._engine.remove(record)
            raise
        except BaseException:
            self._stale = True
            raise

    async def _check_epoch(self) -> None:
        """Raise if the session's epoch is over: nothing would erase a record created after that."""
        state = await self._engine.found(self.session)
        if state.epoch != self.epoch:
            raise EpochChangedError(f"the session now lives in epoch {state.epoch}, not in {self.epoch}")


class Parts:
    """The parts in use, one object per record, shared by all callers."""

    def __init__(self, engine: Engine, limit: DeviceLimit) -> None:
        self._engine = engine
        self._limit = limit
        self._parts: dict[tuple[str, str, int], Part] = {}

    def __iter__(self) -> Iterator[Part]:
        """Iterate over a copy of the parts."""
        return iter(list(self._parts.values()))

    def __len__(self) -> int:
        """Return how many parts are in use."""
        return len(self._parts)

    def get(self, session: str, epoch: str, number: int) -> Part | None:
        """Return a part if it is in use, otherwise None."""
        return self._parts.get((session, epoch, number))

    def take(self, session: str, epoch: str, number: int) -> Part:
        """Return a part and count the caller as its user."""
        part = self.get(session, epoch, number)
        if part is None:
            part = self._parts[session, epoch, number] = Part(self._engine, session, epoch, number, self._limit)
        part.users += 1
        return part

    def give_back(self, part: Part) -> None:
        """End the caller's use of a part.

        The part is dropped once it has no users and nothing to save.
        """
        part.users -= 1
        if part.users == 0 and not part.left:
            del self._parts[part.session, part.epoch, part.number]

    @contextmanager
    def using(self, session: str, epoch: str, number: int) -> Iterator[Part]:
        """Use a part inside the block."""
        part = self.take(session, epoch, number)
        try:
            yield part
        finally:
            self.give_back(part)


def _furthest(connections: list[Connection]) -> int:
    if len(connections) == 1:
        return connections[0].offset_of()
    return max(connection.offset_of() for connection in connections)
