"""Presence: who is connected to a session now, and who comes and goes.

A device is there while one of its connections is. Nothing of it is stored: it ends with the process. Whoever watches is
told by taking: what a slow one has not taken yet is at most one entry a device, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import msgspec

Who: TypeAlias = tuple[str, str]
"""A user and the id of one of its devices."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A device that has come or gone."""

    event: Literal["join", "leave"]
    user: str
    device: str


class Watch:
    """What one who watches a session has not been told yet."""

    def __init__(self, there: Iterable[Who]) -> None:
        self._untold: dict[Who, Change] = {who: Change("join", *who) for who in there}
        self._wake = asyncio.Event()

    async def next(self) -> list[Change]:
        """Wait until there is something to tell; gives all of it, in order. It begins with a join of everyone there."""
        while not self._untold:
            self._wake.clear()
            await self._wake.wait()
        return self.take()

    def take(self) -> list[Change]:
        """The same without waiting."""
        changes = list(self._untold.values())
        self._untold.clear()
        return changes

    def note(self, change: Change) -> None:
        """A device has come or gone."""
        who = (change.user, change.device)
        if self._untold.pop(who, None) is None:  # else it was back, or gone again, before the other was told
            self._untold[who] = change
        self._wake.set()


class _Room:
    """One session's connected devices, and those who watch them."""

    def __init__(self) -> None:
        self.connections: dict[Who, int] = {}
        self.watches: dict[Watch, None] = {}

    def tell(self, change: Change) -> None:
        for watch in self.watches:
            watch.note(change)


class Presence:
    """Who is connected to this gateway, by session."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    def come(self, session: str, user: str, device: str) -> None:
        """One of the device's connections is there from now on."""
        room, who = self._rooms.setdefault(session, _Room()), (user, device)
        room.connections[who] = room.connections.get(who, 0) + 1
        if room.connections[who] == 1:
            room.tell(Change("join", user, device))

    def go(self, session: str, user: str, device: str) -> None:
        """One of those that came is there no more."""
        room, who = self._rooms[session], (user, device)
        room.connections[who] -= 1
        if room.connections[who] == 0:
            del room.connections[who]
            room.tell(Change("leave", user, device))
            self._drop_empty(session)

    @contextmanager
    def watch(self, session: str) -> Iterator[Watch]:
        """Be told who comes and goes for as long as the block lasts, beginning with those who are there."""
        room = self._rooms.setdefault(session, _Room())
        watch = Watch(room.connections)
        room.watches[watch] = None
        try:
            yield watch
        finally:
            del room.watches[watch]
            self._drop_empty(session)

    def present(self, session: str) -> list[Who]:
        """Who is connected to the session now."""
        room = self._rooms.get(session)
        return list(room.connections) if room else []

    def is_there(self, session: str, user: str, device: str) -> bool:
        """Whether a device is connected to the session now."""
        room = self._rooms.get(session)
        return room is not None and (user, device) in room.connections

    def devices(self) -> int:
        """How many devices are connected, one that watches several sessions counted in each."""
        return sum(len(room.connections) for room in self._rooms.values())

    def _drop_empty(self, session: str) -> None:
        room = self._rooms[session]
        if not room.connections and not room.watches:
            del self._rooms[session]
