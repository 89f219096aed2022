"""The bounded buffer of every publisher, with its overflow policies."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")

_NO_LIMIT: Final = sys.maxsize

WhenFull: TypeAlias = Literal["block", "error", "drop_oldest", "coalesce"]


class _Place(Generic[T]):
    """One place of a buffer that coalesces: its entry may be replaced while it waits."""

    __slots__ = ("entry", "key")

    def __init__(self, entry: T, key: Hashable) -> None:
        self.entry = entry
        self.key = key


class Buffer(Generic[T]):
    """A bounded first-in, first-out queue: any thread adds, one event loop takes out.

    Each entry has a numbered place, and places finish in order, so that a flush waits for a number: `taken` counts the
    places that were assigned, `done` the finished ones, `discarded` the entries that were dropped or replaced.

    Args:
        size: Returns the bytes of an entry.
        max_items: The most entries that may wait. No limit when None.
        max_bytes: The most bytes that may wait; a larger entry still may, alone. No limit when None.
        when_full: The policy for an entry that finds no room.
        always_coalesces: With `coalesce`, replace an entry of the same key also while there is room.
    """

    def __init__(
        self,
        size: Callable[[T], int],
        *,
        max_items: int | None = None,
        max_bytes: int | None = None,
        when_full: WhenFull = "block",
        always_coalesces: bool = False,
    ) -> None:
        self._size = size
        self._max_items = _limit(max_items)
        self._max_bytes = _limit(max_bytes)
        self.when_full = when_full
        self._always_coalesces = always_coalesces
        self._waiting: deque[Any] = deque()  # of entries; of places if this buffer coalesces
        self._places: dict[Hashable, list[_Place[T]]] | None = {} if when_full == "coalesce" else None
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # for threads that wait for room
        self._waiters: deque[asyncio.Future[None]] = deque()  # of tasks that wait for room
        self._attended = True
        self.bytes = 0
        self.taken = 0
        self.done = 0
        self.discarded = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room(self, entry: T) -> bool:
        """Return whether there is room for an entry."""
        return self._fits(self._size(entry))

    def is_full(self) -> bool:
        """Return whether the next entry may find no room."""
        return len(self._waiting) >= self._max_items or self.bytes >= self._max_bytes

    def add(self, entry: T, key: Hashable = None) -> None:
        """Add an entry, even over the limits."""
        with self._lock:
            self._append(entry, self._size(entry), key)

    def offer(self, entry: T, key: Hashable = None) -> bool:
        """Add an entry if there is room; return whether there was."""
        size = self._size(entry)
        with self._lock:
            # As `_fits` and `_append`, without their calls: this runs for every event.
            waiting = len(self._waiting)
            if waiting >= self._max_items or (self.bytes + size > self._max_bytes and waiting):
                return False
            if self._places is not None:
                self._append(entry, size, key)
                return True
            self._waiting.append(entry)
            self.bytes += size
            self.taken += 1
            return True

    def put(self, entry: T, key: Hashable = None, *, may_block: bool = False) -> list[T] | None:
        """Add an entry by the policy `when_full`.

        Args:
            entry: The entry.
            key: The name under which `coalesce` replaces it; None if it does not.
            may_block: Block this thread until there is room, with the policy `block`.

        Returns:
            The oldest entries that `drop_oldest` dropped for it, whose places the caller finishes. None if there was no
            room, and the entry was not added.
        """
        with self._lock:
            if self._always_coalesces and self._replace(entry, key):
                return []
            if self.offer(entry, key):
                return []
            if self._replace(entry, key):
                return []
            dropped: list[T] = []
            if self.when_full == "drop_oldest":
                while not self.has_room(entry):
                    dropped += self._pop(1, _NO_LIMIT)
                self.discarded += len(dropped)
            elif self.when_full == "block" and may_block:
                self._changed.wait_for(lambda: self.has_room(entry) or not self._attended)
            return dropped if self.offer(entry, key) else None

    async def room(self, entry: T) -> None:
        """Wait until there may be room; a free place wakes the task that has waited longest."""
        with self._lock:
            if self.has_room(entry):
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.wake(1)  # otherwise the place stays free while other tasks wait
            raise

    def take(self, max_items: int | None = None, max_bytes: int | None = None) -> list[T]:
        """Take out the oldest entries within the limits, at least one; `finish` counts them as done."""
        with self._lock:
            taken = self._pop(_limit(max_items), _limit(max_bytes))
            self.wake(len(taken))
            return taken

    def put_back(self, entries: list[T]) -> None:
        """Put entries back in front, even over the limits; they are not replaced any more."""
        with self._lock:
            if self._places is None:
                self._waiting.extendleft(reversed(entries))
            else:
                self._waiting.extendleft(_Place(entry, None) for entry in reversed(entries))
            self.bytes += sum(map(self._size, entries))

    def finish(self, count: int) -> None:
        """Count the oldest unfinished places as done."""
        with self._lock:
            self.done += count

    def wake(self, count: int | None = None) -> None:
        """Wake this many tasks that wait for room, all of them by default, and every thread."""
        with self._lock:
            self._changed.notify_all()
            while self._waiters and count != 0:
                if self._hand_over(self._waiters.popleft()) and count is not None:
                    count -= 1

    def set_attended(self, attended: bool) -> None:
        """Set whether a task takes entries out, as at first; threads block for room only then."""
        with self._lock:
            self._attended = attended
            self.wake()

    def _replace(self, entry: T, key: Hashable) -> bool:
        """Replace the newest entry of the key, and remove older ones until the new one fits."""
        places = None if self._places is None else self._places.get(key)
        if not places:
            return False
        room = self._max_bytes - self.bytes - self._size(entry)
        for count in range(1, len(places) + 1):
            room += self._size(places[-count].entry)
            if room >= 0:
                break
        else:
            return False
        self.bytes += self._size(entry) - sum(self._size(place.entry) for place in places[-count:])
        places[-1].entry = entry
        for place in places[-count:-1]:
            self._waiting.remove(place)
        del places[-count:-1]
        self.done += count - 1
        self.discarded += count
        return True

    def _fits(self, size: int) -> bool:
        waiting = len(self._waiting)
        return waiting < self._max_items and (self.bytes + size <= self._max_bytes or not waiting)

    def _append(self, entry: T, size: int, key: Hashable) -> None:
        if self._places is None:
            self._waiting.append(entry)
        else:
            place = _Place(entry, key)
            self._waiting.append(place)
            if key is not None:
                self._places.setdefault(key, []).append(place)
        self.bytes += size
        self.taken += 1

    def _pop(self, max_items: int, max_bytes: int) -> list[T]:
        waiting, places, size_of = self._waiting, self._places, self._size
        count = total = 0
        for place in waiting:
            size = size_of(place if places is None else place.entry)
            if count == max_items or (count and total + size > max_bytes):
                break
            total += size
            count += 1
        self.bytes -= total
        popped = [waiting.popleft() for _ in range(count)]
        return popped if places is None else [self._freed(place, places) for place in popped]

    @staticmethod
    def _freed(place: _Place[T], known: dict[Hashable, list[_Place[T]]]) -> T:
        """Remove a place that was taken out from the keys, and return its entry."""
        if place.key is not None:
            places = known[place.key]
            del places[0]
            if not places:
                del known[place.key]
        return place.entry

    def _hand_over(self, waiter: asyncio.Future[None]) -> bool:
        """Wake one task; return whether it still waited."""
        if waiter.done():
            return False
        with suppress(RuntimeError):  # its loop is closed
            if waiter.get_loop() is _running_loop():
                waiter.set_result(None)
            else:
                waiter.get_loop().call_soon_threadsafe(self._wake_there, waiter)
            return True
        return False

    def _wake_there(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            self.wake(1)  # cancelled meanwhile: the next task gets the place
        else:
            waiter.set_result(None)


def _limit(limit: int | None) -> int:
    return _NO_LIMIT if limit is None else limit


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
