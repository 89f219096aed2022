"""Presence: which devices are connected to a session, and which connect and disconnect.

A device is present while it has at least one connection. Presence is not stored; it ends with the process. A watcher
fetches changes at its own pace: a slow watcher holds at most one pending change for each device and delays nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
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
    """One session's connected devices and its watchers."""

    def __init__(self) -> None:
        self.connections: dict[Who, int] = {}
        self.watches: dict[Watch, None] = {}

    def notify(self, change: Change) -> None:
        for watch in self.watches:
            watch.note(change)


class Presence:
    """The devices that are connected to this gateway, by session."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    def come(self, session: str, user: str, device: str) -> None:
        """Add a connection of a device; its first one makes the device present."""
        room, who = self._rooms.setdefault(session, _Room()), (user, device)
        room.connections[who] = room.connections.get(who, 0) + 1
        if room.connections[who] == 1:
            room.notify(Change("join", user, device))

    def go(self, session: str, user: str, device: str) -> None:
        """Remove a connection of a device; without connections the device is absent."""
        room, who = self._rooms[session], (user, device)
        room.connections[who] -= 1
        if room.connections[who] == 0:
            del room.connections[who]
            room.notify(Change("leave", user, device))
            self._drop_empty(session)

    @contextmanager
    def watch(self, session: str) -> Iterator[Watch]:
        """Watch a session inside the block, beginning with a join for each present device."""
        room = self._rooms.setdefault(session, _Room())
        watch = Watch(room.connections)
        room.watches[watch] = None
        try:
            yield watch
        finally:
            del room.watches[watch]
            self._drop_empty(session)

    def present(self, session: str) -> list[Who]:
        """Return the devices that are connected to the session."""
        room = self._rooms.get(session)
        return list(room.connections) if room else []

    def is_there(self, session: str, user: str, device: str) -> bool:
        """Return whether a device is connected to the session."""
        room = self._rooms.get(session)
        return room is not None and (user, device) in room.connections

    def devices(self) -> int:
        """Return the number of connected devices; a device in several sessions counts in each."""
        return sum(len(room.connections) for room in self._rooms.values())

    def _drop_empty(self, session: str) -> None:
        room = self._rooms[session]
        if not room.connections and not room.watches:
            del self._rooms[session]
