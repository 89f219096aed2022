"""Presence: which devices are connected to a session, and which connect and disconnect.

A device is present while it has at least one connection, at whichever gateway; `exchange.py` adds the devices at the other
gateways of a shared store. A watcher fetches changes at its own pace: a slow watcher holds at most one pending change for each
device and delays nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import msgspec

Who: TypeAlias = tuple[str, str]
"""A user and the id of one of the user's devices."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A device joined or left."""

    event: Literal["join", "leave"]
    user: str
    device: str


class Watch:
    """The changes of one session that a watcher has not fetched yet."""

    def __init__(self, present: Iterable[Who]) -> None:
        self._pending: dict[Who, Change] = {who: Change("join", *who) for who in present}
        self._wake = asyncio.Event()

    async def next(self) -> list[Change]:
        """Wait for changes and return them in order.

        The first call returns a join for each present device.
        """
        while not self._pending:
            self._wake.clear()
            await self._wake.wait()
        return self.take()

    def take(self) -> list[Change]:
        """Return the pending changes without waiting."""
        changes = list(self._pending.values())
        self._pending.clear()
        return changes

    def note(self, change: Change) -> None:
        """Add a change; a device's pending join and leave cancel each other."""
        who = (change.user, change.device)
        if self._pending.pop(who, None) is None:
            self._pending[who] = change
        self._wake.set()


class _Room:
    """One session's connected devices and its watchers.

    Attributes:
        connections: The transports of each device's connections to this gateway.
        elsewhere: The devices at other gateways, as of the last read; empty while nobody watches.
        watches: The watchers.
    """

    def __init__(self) -> None:
        self.connections: dict[Who, list[str]] = {}
        self.elsewhere: frozenset[Who] = frozenset()
        self.watches: dict[Watch, None] = {}

    def notify(self, event: Literal["join", "leave"], who: Who) -> None:
        for watch in self.watches:
            watch.note(Change(event, *who))


class Presence:
    """The connected devices by session; an `Exchange` adds those at other gateways."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._changed: Callable[[str], object] | None = None
        self._elsewhere: Callable[[str], Awaitable[frozenset[Who]]] | None = None

    def share(self, changed: Callable[[str], object], elsewhere: Callable[[str], Awaitable[frozenset[Who]]]) -> None:
        """Share presence with other gateways.

        Args:
            changed: Called with a session when a device joins or leaves it at this gateway.
            elsewhere: Returns the devices that are connected to a session at other gateways.
        """
        self._changed, self._elsewhere = changed, elsewhere

    def come(self, session: str, user: str, device: str, transport: str = "") -> None:
        """Add a connection of a device; its first one makes the device present."""
        room, who = self._rooms.setdefault(session, _Room()), (user, device)
        transports = room.connections.setdefault(who, [])
        transports.append(transport)
        if len(transports) == 1:
            self._moved(session, room, "join", who)

    def go(self, session: str, user: str, device: str, transport: str = "") -> None:
        """Remove a connection of a device; without connections the device is absent."""
        room, who = self._rooms[session], (user, device)
        room.connections[who].remove(transport)
        if not room.connections[who]:
            del room.connections[who]
            self._moved(session, room, "leave", who)
            self._drop_empty(session)

    @contextmanager
    def watch(self, session: str) -> Iterator[Watch]:
        """Watch a session inside the block, beginning with a join for each present device."""
        room = self._rooms.setdefault(session, _Room())
        watch = Watch([*room.connections, *(room.elsewhere - room.connections.keys())])
        room.watches[watch] = None
        try:
            yield watch
        finally:
            del room.watches[watch]
            if not room.watches:
                room.elsewhere = frozenset()
            self._drop_empty(session)

    def watched(self) -> list[str]:
        """Return the sessions that have watchers."""
        return [session for session, room in self._rooms.items() if room.watches]

    def put_elsewhere(self, session: str, devices: frozenset[Who]) -> None:
        """Set the devices at other gateways of a watched session, and notify its watchers."""
        room = self._rooms.get(session)
        if room is None or not room.watches:
            return  # the last watcher has left meanwhile
        before, room.elsewhere = room.elsewhere, devices
        for who in devices - before - room.connections.keys():
            room.notify("join", who)
        for who in before - devices - room.connections.keys():
            room.notify("leave", who)

    def present(self, session: str) -> list[Who]:
        """Return the devices that are connected to the session at this gateway."""
        room = self._rooms.get(session)
        return list(room.connections) if room else []

    def transports(self, session: str, user: str, device: str) -> list[str]:
        """Return the transports of a device's connections to this gateway."""
        room = self._rooms.get(session)
        return room.connections.get((user, device), []) if room else []

    async def everywhere(self, session: str) -> frozenset[Who]:
        """Return the devices that are connected to the session, at whichever gateway."""
        here = frozenset(self.present(session))
        return here if self._elsewhere is None else here | await self._elsewhere(session)

    async def is_there(self, session: str, user: str, device: str) -> bool:
        """Return whether a device is connected to the session, at whichever gateway."""
        room, who = self._rooms.get(session), (user, device)
        if room is not None and who in room.connections:
            return True
        return self._elsewhere is not None and who in await self._elsewhere(session)

    def devices(self) -> int:
        """Return the number of devices connected here; one in several sessions counts in each."""
        return sum(len(room.connections) for room in self._rooms.values())

    def _moved(self, session: str, room: _Room, event: Literal["join", "leave"], who: Who) -> None:
        if who not in room.elsewhere:
            room.notify(event, who)
        if self._changed is not None:
            self._changed(session)

    def _drop_empty(self, session: str) -> None:
        room = self._rooms[session]
        if not room.connections and not room.watches:
            del self._rooms[session]
