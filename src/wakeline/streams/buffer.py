"""Events that wait to be sent, how many may, and what happens to the next one when so many do."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import Literal

from wakeline.logs import get_logger
from wakeline.streams.errors import BufferFullError
from wakeline.streams.wire import PublishEntry, wire_size

logger = get_logger(__name__)

WhenFull = Literal["block", "error", "drop_oldest", "coalesce"]

_HIGH_WATER_BYTES = 64_000_000


class Buffer:
    """A first-in, first-out queue of events. Any thread may add; one loop takes out.

    Args:
        owner: What the events are for, to be named in messages.
        max_items: Events that may wait. No limit when `None`.
        max_bytes: Bytes on the wire that may wait; a single larger event still may, alone. No limit when `None`.
        when_full: What happens to an event that finds no room.
    """

    def __init__(
        self, owner: str, *, max_items: int | None = None, max_bytes: int | None = None, when_full: WhenFull = "block"
    ) -> None:
        for name, limit in (("max_buffered_items", max_items), ("max_buffered_bytes", max_bytes)):
            if limit is not None and limit < 1:
                raise ValueError(f"expected {name} of at least 1, got {limit}")
        self._owner = owner
        self._max_items = max_items
        self._max_bytes = max_bytes
        self.when_full = when_full
        self._entries: deque[PublishEntry] = deque()
        # Also wakes threads that wait for room.
        self._lock = threading.Condition()
        self._waiting: list[asyncio.Future[None]] = []
        self._attended = True
        self._warned = False
        self.bytes = 0
        # Events taken in, and events done with: acknowledged, given up or discarded. The difference waits or is sent.
        self.taken = 0
        self.done = 0
        self.discarded = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: PublishEntry, *, may_block: bool) -> None:
        """Take in an event.

        Args:
            entry: The event.
            may_block: This thread is not the one that sends, so that it may wait for room here.

        Raises:
            BufferFullError: There is no room, and nothing was to be discarded for it.
        """
        with self._lock:
            if not self._has_room(entry):
                self._make_room(entry, may_block)
            else:
                self._append(entry)

    def offer(self, entry: PublishEntry) -> bool:
        """Take in an event if there is room."""
        with self._lock:
            if not self._has_room(entry):
                return False
            self._append(entry)
            return True

    async def room(self, entry: PublishEntry) -> None:
        """Wait until there may be room."""
        with self._lock:
            if self._has_room(entry):
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
        try:
            await waiter
        finally:
            with self._lock, suppress(ValueError):
                self._waiting.remove(waiter)

    def is_full(self) -> bool:
        """Whether the next event may find no room."""
        return (self._max_items is not None and len(self._entries) >= self._max_items) or (
            self._max_bytes is not None and self.bytes >= self._max_bytes
        )

    def take(self, max_items: int | None, max_bytes: int) -> list[PublishEntry]:
        """Take out the oldest events, as many as fit; one at least if there is one."""
        taken: list[PublishEntry] = []
        size = 0
        with self._lock:
            while self._entries and len(taken) != max_items:
                size += _size(self._entries[0])
                if size > max_bytes and taken:
                    break
                taken.append(self._entries.popleft())
                self.bytes -= _size(taken[-1])
            self.wake()
        return taken

    def put_back(self, entries: list[PublishEntry]) -> None:
        """Put events back that were taken out, in front, also over the limits."""
        with self._lock:
            self._entries.extendleft(reversed(entries))
            self.bytes += sum(map(_size, entries))

    def finish(self, count: int) -> None:
        """So many of the events taken out are done with."""
        with self._lock:
            self.done += count

    def wake(self) -> None:
        """Have everyone who waits for room look again."""
        with self._lock:
            self._lock.notify_all()
            waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            with suppress(RuntimeError):  # its loop is closed, and nobody waits there any more
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    def attended(self, now: bool) -> None:
        """Whether somebody takes out what there is, as is so at first: a thread that finds no room may wait for it then."""
        with self._lock:
            self._attended = now
            self.wake()

    def _has_room(self, entry: PublishEntry) -> bool:
        if self._max_items is not None and len(self._entries) >= self._max_items:
            return False
        return self._max_bytes is None or not self._entries or self.bytes + _size(entry) <= self._max_bytes

    def _append(self, entry: PublishEntry) -> None:
        self._entries.append(entry)
        self.bytes += _size(entry)
        self.taken += 1
        if self.bytes > _HIGH_WATER_BYTES and not self._warned:
            logger.warning("Over %d MB wait to be sent to %s", _HIGH_WATER_BYTES // 10**6, self._owner)
        # Said once each time it is passed, not for each event above it.
        self._warned = self.bytes > (_HIGH_WATER_BYTES // 2 if self._warned else _HIGH_WATER_BYTES)

    def _make_room(self, entry: PublishEntry, may_block: bool) -> None:
        if self.when_full == "coalesce" and self._replace_older(entry):
            return
        if self.when_full == "block" and may_block:
            self._lock.wait_for(lambda: self._has_room(entry) or not self._attended)
        elif self.when_full == "drop_oldest":
            while not self._has_room(entry):
                self.bytes -= _size(self._entries.popleft())
                self.done += 1
                self.discarded += 1
        if not self._has_room(entry):
            raise BufferFullError(
                f"expected room for an event of topic {entry.topic!r}, "
                f"got {len(self._entries)} events of {self.bytes} bytes that wait to be sent to {self._owner}",
                events=len(self._entries),
                bytes=self.bytes,
            )
        self._append(entry)

    def _replace_older(self, entry: PublishEntry) -> bool:
        """Put an event in the place of the newest ones of its topic: as many as it takes for it to fit."""
        room = 0 if self._max_bytes is None else self._max_bytes - self.bytes - _size(entry)
        replaced: list[int] = []
        for index in range(len(self._entries) - 1, -1, -1):
            if self._entries[index].topic != entry.topic:
                continue
            replaced.append(index)
            room += _size(self._entries[index])
            if room >= 0:
                break
        else:
            return False
        self.bytes += _size(entry) - sum(_size(self._entries[index]) for index in replaced)
        self._entries[replaced[0]] = entry
        for index in replaced[1:]:
            del self._entries[index]
        # The replaced one's place among those taken in goes to the new one.
        self.done += len(replaced) - 1
        self.discarded += len(replaced)
        return True


def _size(entry: PublishEntry) -> int:
    return wire_size(entry.topic, entry.data)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
