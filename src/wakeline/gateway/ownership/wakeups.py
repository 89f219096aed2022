"""Wake-ups: hints for the owner of a name at another gateway, to do its work at once.

A gateway collects the hints for names that it does not own, and writes them together into one record of its own. Every gateway
polls these records and follows the hints for the names that it owns. So a hint at the owner costs no write, and any number
of hints at another gateway cost a few writes a second. A hint may be lost with its gateway: the work is done later then.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

import msgspec

from wakeline.background import cancel_all
from wakeline.errors import RecordConflictError, UnavailableError
from wakeline.gateway.log import MAX_RECORD_BYTES, Record, Records
from wakeline.gateway.runtime import supervised
from wakeline.retry import Backoff

_PREFIX: Final = "wakeups/"
_WRITE_SECONDS: Final = 0.1
_POLL_SECONDS: Final = 0.2
_KEPT_SECONDS: Final = 2.0
"""Seconds for which a hint stays in its record after it was written: every gateway polls more often."""
_LONGEST_PAUSE: Final = 2.0
_ABANDONED_SECONDS: Final = 60.0
_MOST_WAITING: Final = 10_000
_MOST_BYTES: Final = MAX_RECORD_BYTES // 2
_OVERHEAD_BYTES: Final = 40


class _Hint(msgspec.Struct, frozen=True, array_like=True):
    number: int
    subject: str
    name: str
    detail: str


_decoder = msgspec.json.Decoder(list[_Hint])


class Wakeups:
    """Sends hints to the owners of names at other gateways, and receives theirs.

    Args:
        records: The shared store.
        gateway: The name of this gateway, which is unique.
        owns: Returns whether this gateway owns a name.
    """

    def __init__(self, records: Records, gateway: str, owns: Callable[[str], bool]) -> None:
        self._records = records
        self._key = f"{_PREFIX}{gateway}"
        self._owns = owns
        self._listeners: dict[str, Callable[[str, str], None]] = {}
        self._urgent: dict[tuple[str, str, str], None] = {}
        self._others: dict[tuple[str, str, str], None] = {}
        self._any = asyncio.Event()
        self._written: deque[tuple[float, _Hint]] = deque()
        self._size = 0  # of the written hints, at most
        self._number = 0
        self._revision = 0
        self._read: dict[str, tuple[int, float, int]] = {}  # by record: revision, since when, and its last hint
        self._tasks: list[asyncio.Task[None]] = []

    def listen(self, subject: str, listener: Callable[[str, str], None]) -> None:
        """Call `listener` with the name and detail of each hint on a subject for this gateway."""
        self._listeners[subject] = listener

    def wake(self, subject: str, name: str, detail: str, *, urgent: bool = True) -> None:
        """Give the owner of a name a hint, unless this gateway owns it; equal hints are sent once.

        Args:
            subject: Selects the listener at the owner.
            name: The name.
            detail: Given to the listener.
            urgent: False for a hint that waits for the urgent ones. Default: True.
        """
        waiting = self._urgent if urgent else self._others
        if self._tasks and not self._owns(name) and len(waiting) < _MOST_WAITING:
            waiting[subject, name, detail] = None
            self._any.set()

    async def start(self) -> None:
        """Send and receive hints in the background."""
        self._tasks = [supervised("wake-ups", self._write_for_ever), supervised("woken", self._poll_for_ever)]

    async def stop(self) -> None:
        """Stop sending and receiving, and remove the record."""
        await cancel_all(*self._tasks)
        with suppress(RecordConflictError, UnavailableError):
            if self._revision:
                await self._records.delete_record(self._key, revision=self._revision)

    async def _write_for_ever(self) -> None:
        backoff = Backoff(_WRITE_SECONDS, _LONGEST_PAUSE)
        while True:
            await self._any.wait()
            self._collect()
            try:
                await self._write()
            except UnavailableError:
                await backoff.wait()
                continue
            # Only now: a write that fails is repeated, also after an error that nobody expected.
            if not self._urgent and not self._others:
                self._any.clear()
            backoff.reset()
            await asyncio.sleep(_WRITE_SECONDS)

    def _collect(self) -> None:
        """Move waiting hints into the record, as far as there is room, and old ones out of it."""
        now = monotonic()
        while self._written and self._written[0][0] < now - _KEPT_SECONDS:
            self._size -= _size(self._written.popleft()[1])
        # Those that are not urgent leave half of the record free: however many they are, an urgent one finds room at once.
        for hints, most in ((self._urgent, _MOST_BYTES), (self._others, _MOST_BYTES // 2)):
            while hints and self._size < most:
                waiting = next(iter(hints))
                del hints[waiting]
                self._number += 1
                hint = _Hint(self._number, *waiting)
                self._written.append((math.inf, hint))
                self._size += _size(hint)

    async def _write(self) -> None:
        value = msgspec.json.encode([hint for _, hint in self._written])
        while True:
            try:
                record = await self._records.put_record(self._key, value, revision=self._revision)
            except RecordConflictError:  # an answer was lost, or another gateway has removed it as abandoned
                found = await self._records.get_record(self._key)
                self._revision = found.revision if found else 0
            else:
                self._revision, now = record.revision, monotonic()
                self._written = deque((min(written, now), hint) for written, hint in self._written)
                return

    async def _poll_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            with suppress(UnavailableError):
                records = [record for record in await self._records.records(_PREFIX) if record.key != self._key]
                await self._receive(records)

    async def _receive(self, records: Sequence[Record]) -> None:
        now = monotonic()
        known, self._read = self._read, {}
        for record in records:
            revision, since, last = known.get(record.key, (0, now, 0))
            if revision != record.revision:
                since = now
                for hint in _decoder.decode(record.value):
                    if hint.number > last:
                        last = hint.number
                        self._follow(hint)
            elif now > since + _ABANDONED_SECONDS:
                await self._records.remove(record)
            self._read[record.key] = (record.revision, since, last)

    def _follow(self, hint: _Hint) -> None:
        listener = self._listeners.get(hint.subject)
        if listener is not None and self._owns(hint.name):
            listener(hint.name, hint.detail)


def _size(hint: _Hint) -> int:
    """Return the bytes of a hint in a record, at most: JSON may escape each byte as six."""
    return _OVERHEAD_BYTES + 6 * len(hint.name.encode() + hint.detail.encode())
