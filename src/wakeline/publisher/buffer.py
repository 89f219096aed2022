"""Events that wait to be sent: bounded, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

WhenFull: TypeAlias = Literal["block", "error", "drop_oldest", "coalesce"]

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024 - 64 * 1024
_MAX_BYTES: Final = 64 * 1024 * 1024


class Entry:
    """One place in the queue; with `coalesce` its event may be replaced while it waits."""

    __slots__ = ("body", "key")

    def __init__(self, body: bytes, key: tuple[str, str] | None) -> None:
        self.body = body
        self.key = key


class Buffer:
    """A queue of events, each its JSON object.

    Places are counted: `issued` were given out, `done` are those that nobody need care for any more. Since they are done in
    order, "everything up to now" is a number.

    Args:
        most: How many events may wait.
        when_full: What happens to one more.
    """

    def __init__(self, most: int, when_full: WhenFull) -> None:
        self._most = most
        self._when_full = when_full
        self._waiting: deque[Any] = deque()  # of bodies; with `coalesce`, of entries
        self._coalesces = when_full == "coalesce"
        self._latest: dict[tuple[str, str], Entry] = {}
        self._bytes = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self.issued = 0
        self.done = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room(self) -> bool:
        """Whether one more event may wait."""
        return len(self._waiting) < self._most and self._bytes < _MAX_BYTES

    def add(self, body: bytes) -> None:
        """Take an event, at the end; whether there is room is the caller's question."""
        self._waiting.append(Entry(body, None) if self._coalesces else body)
        self._bytes += len(body)
        self.issued += 1

    def add_keyed(self, body: bytes, key: tuple[str, str]) -> None:
        """The same, where a later event of the key may take its place."""
        entry = Entry(body, key)
        self._latest[key] = entry
        self._waiting.append(entry)
        self._bytes += len(body)
        self.issued += 1

    def replace(self, body: bytes, key: tuple[str, str]) -> bool:
        """Put an event in the place of one of the same key that still waits; False if there is none."""
        entry = self._latest.get(key)
        if entry is None:
            return False
        self._bytes += len(body) - len(entry.body)
        entry.body = body
        return True

    def drop_oldest(self) -> list[bytes]:
        """Make room for one; returns what had to go. Its places are not done."""
        dropped: list[bytes] = []
        while self._waiting and not self.has_room():
            dropped.append(self._take())
        return dropped

    def cut(self, most: int) -> list[bytes]:
        """The next batch, at least one event if there is one. Its places are not done."""
        batch: list[bytes] = []
        size = 0
        while self._waiting and len(batch) < most:
            following = self._waiting[0].body if self._coalesces else self._waiting[0]
            size += len(following) + 1
            if size > MAX_BATCH_BYTES and batch:
                break
            batch.append(self._take())
        if self._room:
            self._tell_room(len(batch))
        return batch

    def drain(self) -> list[bytes]:
        """Everything that waits, for good; its places are done."""
        bodies = [self._take() for _ in range(len(self._waiting))]
        self.done += len(bodies)
        self._tell_room(len(self._room))
        return bodies

    async def room(self) -> None:
        """Wait until there may be room."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._tell_room(1)  # its turn goes to the next one
            raise

    def wake(self) -> None:
        """Wake all who wait for room: something else has happened."""
        self._tell_room(len(self._room))

    def _take(self) -> bytes:
        taken = self._waiting.popleft()
        if self._coalesces:
            if taken.key is not None:
                del self._latest[taken.key]
            taken = taken.body
        body: bytes = taken
        self._bytes -= len(body)
        return body

    def _tell_room(self, places: int) -> None:
        _resolve(self._room, places)


def _resolve(waiting: deque[asyncio.Future[None]], count: int) -> None:
    for _ in range(count):
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break


def joined(bodies: Iterable[bytes]) -> bytes:
    """Events as the inside of a JSON array."""
    return b",".join(bodies)
