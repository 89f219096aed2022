"""Which of several gateways on one store does the background work of which sessions and workflows.

Names are dealt to shards, and each shard is one record that its owner writes again and again. A gateway that sees a record
unchanged for long enough, by its own clock, may take the shard: no two clocks are compared. An owner that cannot write gives its
shards up by itself. One that was paused and does not know yet can do no harm: the log keeps once what two gateways append,
and every other background work may be done twice.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from typing import Final
from zlib import crc32

import structlog

from wakeline.background import cancel_all
from wakeline.errors import RecordConflictError, UnavailableError
from wakeline.gateway.log import Record, Records
from wakeline.gateway.runtime import supervised

SHARDS: Final = 16
_SHARD: Final = "leases/shard/"
_GATEWAY: Final = "leases/gateway/"
_log = structlog.get_logger(__name__)


class Ownership:
    """The shards that this gateway owns; all of them, if the store is not shared.

    Args:
        records: Keeps the leases.
        seconds: How long an unchanged lease is respected.
        shared: Several gateways may use the store.
    """

    def __init__(self, records: Records, seconds: float, *, shared: bool) -> None:
        self.shared = shared
        self._name = secrets.token_hex(8)
        self._records = records
        self._seconds = seconds
        self._listeners: list[Callable[[], None]] = []
        self._held: dict[str, int] = {}  # by key: the revision that this gateway has written
        self._seen: dict[str, tuple[int, float]] = {}  # by key: a revision, and since when it is there
        self._written = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def owns(self, name: str) -> bool:
        """Return whether this gateway does the background work of a session or workflow."""
        return not self.shared or f"{_SHARD}{crc32(name.encode()) % SHARDS}" in self._held

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever this gateway has gained or lost shards."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Take free shards, and renew the leases in the background."""
        if self.shared:
            await self._round()
            self._task = supervised("leases", self._renew_for_ever)

    async def stop(self) -> None:
        """Give the shards back, so that other gateways need not wait."""
        await cancel_all(self._task)
        for key, revision in list(self._held.items()):
            await self._give_back(key, revision)
        self._held.clear()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 4)
            await self._round()

    async def _round(self) -> None:
        before = set(self._held)
        try:
            async with asyncio.timeout(self._seconds / 2):
                await self._renew_and_take()
            self._written = time.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever prevents renewal, the shards must be given up in time
            if time.monotonic() - self._written > self._seconds / 2:
                # Before another gateway may take them, this one must have stopped.
                self._held.clear()
            _log.warning("leases cannot be written", error=repr(error))
        if set(self._held) != before:
            for listener in self._listeners:
                listener()

    async def _renew_and_take(self) -> None:
        own = f"{_GATEWAY}{self._name}"
        records = {record.key: record for record in await self._records.records("leases/")}
        fresh = {key for key, record in records.items() if self._is_fresh(record)}
        gateways = {key for key in fresh if key.startswith(_GATEWAY)} | {own}
        share = math.ceil(SHARDS / len(gateways))
        shards = [f"{_SHARD}{number}" for number in range(SHARDS)]
        for key in shards:
            if key not in records or records[key].revision != self._held.get(key):
                self._held.pop(key, None)
        too_many = list(self._held)[share:]
        free = [key for key in shards if key not in self._held and key not in fresh]
        gone = [key for key in records if key.startswith(_GATEWAY) and key not in gateways]
        # All at once: on a slow store one after the other would take longer than a lease lasts.
        await asyncio.gather(
            self._write(own, records.get(own)),
            *(self._write(key, records[key], held=True) for key in list(self._held)[:share]),
            *(self._write(key, records.get(key), held=True) for key in free[: max(0, share - len(self._held))]),
            *(self._give_back(key, self._held.pop(key)) for key in too_many),
            *(self._give_back(key, records[key].revision) for key in gone),
        )

    def _is_fresh(self, record: Record) -> bool:
        now = time.monotonic()
        revision, since = self._seen.get(record.key, (-1, now))
        if revision != record.revision:
            self._seen[record.key] = (record.revision, now)
            return True
        return now - since < self._seconds

    async def _write(self, key: str, record: Record | None, *, held: bool = False) -> None:
        revision = record.revision if record is not None else 0
        try:
            written = await self._records.put_record(key, self._name.encode(), revision=revision)
        except RecordConflictError:
            self._held.pop(key, None)  # another gateway was faster
            return
        self._seen[key] = (written.revision, time.monotonic())
        if held:
            self._held[key] = written.revision

    async def _give_back(self, key: str, revision: int) -> None:
        try:
            await self._records.delete_record(key, revision=revision)
        except (RecordConflictError, UnavailableError):
            return
