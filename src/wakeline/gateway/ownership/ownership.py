"""Divides background work among the gateways that share a store, by leases.

The name of a session or workflow determines its shard, and each shard is one record, its lease, which its owner writes
periodically. A gateway that sees a lease unchanged for long enough, by its own clock, may claim the shard; so no two clocks
are compared. An owner that cannot write its leases drops its shards in time. An owner that was paused may work on for a
moment after another gateway has claimed its shard. That is harmless: the log recognises an append that two gateways make,
and all other background work can be done twice.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from typing import Final
from zlib import crc32

from wakeline.background import cancel_all
from wakeline.errors import RecordConflictError, UnavailableError
from wakeline.gateway.log import Record, Records
from wakeline.gateway.ownership.wakeups import Wakeups
from wakeline.gateway.runtime import LoggedOutage, is_logged, supervised

SHARDS: Final = 16
SHARD: Final = "leases/shard/"
GATEWAY: Final = "leases/gateway/"
LEAVING: Final = b"leaving "
"""The value of a gateway's lease is its place, after this if it is about to stop: it runs, and wants no shards."""


class Ownership:
    """The shards that this gateway owns: all of them if the store is not shared.

    Args:
        records: Stores the leases.
        seconds: The duration of a lease: after so long without a change other gateways may claim the shard.
        shared: Whether several gateways may use the store.
        place: What tells this gateway from others, for people who run them.

    Attributes:
        name: This gateway's name, another one after each start.
        lapses: How often this gateway has lost its own lease and has it again, because it was paused for so long that others
            counted it as ended.
        wakeups: Hints for the owner of a name at another gateway; none are sent if the store is not shared.
    """

    def __init__(self, records: Records, seconds: float, *, shared: bool, place: str = "unknown") -> None:
        self.shared = shared
        self._place = place.encode()
        self.name = secrets.token_hex(8)
        self.lapses = 0
        self._lapsed = False
        self._leaving = False
        self._records = records
        self._seconds = seconds
        self._listeners: list[tuple[Callable[[], None], bool]] = []  # and whether gains alone matter
        self._held: dict[str, int] = {}  # by key: the revision that this gateway has written
        self._seen: dict[str, tuple[int, float]] = {}  # by key: the last revision, and the time it was first seen
        self._renewed = time.monotonic()
        self._announced: set[str] = set()  # the shards as the listeners know them
        self._outage = LoggedOutage("leases cannot be renewed", "leases are renewed again")
        self._rounds = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.wakeups = Wakeups(records, self.name, self.owns)

    def owns(self, name: str) -> bool:
        """Return whether the background work of a session or workflow belongs to this gateway."""
        return not self.shared or f"{SHARD}{crc32(name.encode()) % SHARDS}" in self._held

    def shards(self) -> int:
        """Return how many shards this gateway owns."""
        return len(self._held) if self.shared else SHARDS

    def listen(self, listener: Callable[[], None], *, gains: bool = False) -> None:
        """Call `listener` whenever this gateway gains or loses shards.

        Args:
            listener: Is called after the change.
            gains: Call it only when this gateway gains some. Default: False.
        """
        self._listeners.append((listener, gains))

    async def gateways(self) -> dict[str, bool]:
        """Return the names of the gateways that have a lease, and whether it has not expired."""
        leases = await self._records.records(GATEWAY)
        return {lease.key.removeprefix(GATEWAY): self._is_fresh(lease) for lease in leases}

    async def start(self) -> None:
        """Claim free shards, and renew the leases in the background."""
        if self.shared:
            await self._round()
            self._task = supervised("leases", self._renew_for_ever)
            await self.wakeups.start()

    async def leave(self) -> None:
        """Release all shards and claim none again; the gateway still counts as running."""
        if not self.shared:
            return
        self._leaving = True
        await self._round()

    async def stop(self) -> None:
        """Release all leases, so that other gateways need not wait for them to expire."""
        await self.wakeups.stop()
        async with self._rounds:  # a cancelled round may still write leases, and nobody would know their revisions
            await cancel_all(self._task)
        own = f"{GATEWAY}{self.name}"
        if own in self._seen:
            await self._release(own, self._seen[own][0])
        for key, revision in list(self._held.items()):
            await self._release(key, revision)
        self._held.clear()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 4)
            await self._round()

    async def _round(self) -> None:
        async with self._rounds:
            await self._one_round()

    async def _one_round(self) -> None:
        began = time.monotonic()
        ends = began + self._seconds / 2
        if self._held:
            # Another gateway may count a lease from the begin of the round that wrote it. Without shards there is nothing to
            # drop in time: on a slow store, a round that had no more than a moment would fail for ever.
            ends = min(ends, self._renewed + 0.9 * self._seconds)
        try:
            async with asyncio.timeout(max(ends - began, self._seconds / 20)):
                await self._renew_and_claim()
            self._renewed = began
            self._outage.over()
        except Exception as error:  # noqa: BLE001 - on any error the shards must be dropped in time
            if time.monotonic() - self._renewed > 0.6 * self._seconds:
                # The next round may end too late: when another gateway claims the shards, this one must have stopped.
                self._held.clear()
            if not is_logged(error):
                text = "the store did not answer in time" if isinstance(error, TimeoutError) else repr(error)
                self._outage.failed(text, began, at_once=True)
        if set(self._held) != self._announced:
            gained, self._announced = set(self._held) - self._announced, set(self._held)
            for listener, gains in self._listeners:
                if gained or not gains:
                    listener()

    async def _renew_and_claim(self) -> None:
        """Renew this gateway's leases, and claim or release shards until it has an equal share."""
        own = f"{GATEWAY}{self.name}"
        records = {record.key: record for record in await self._records.records("leases/")}
        # Counted when it is there again: from then on the others leave alone what this gateway writes.
        self.lapses += self._lapsed and own in records
        self._lapsed = own not in records and own in self._seen
        # Each start has another name: without this, the leases of all gateways that ever ran would be kept.
        self._seen = {key: seen for key, seen in self._seen.items() if key in records or key == own}
        fresh = {key for key, record in records.items() if self._is_fresh(record)}
        gateways = {key for key in fresh if key.startswith(GATEWAY)} | {own}
        staying = {key for key in gateways - {own} if not records[key].value.startswith(LEAVING)}
        share = 0 if self._leaving else math.ceil(SHARDS / (len(staying) + 1))
        shards = [f"{SHARD}{number}" for number in range(SHARDS)]
        for key in shards:
            if key not in records or records[key].revision != self._held.get(key):
                self._held.pop(key, None)
        too_many = list(self._held)[share:]
        # Those that were written longest ago first: while gateways come and go, each may live just long enough to claim its
        # share, and with another order the last shards would have no owner for ever.
        # A round that failed may have written leases in the name of this gateway, which it has dropped.
        free = sorted(
            (key for key in shards if key not in self._held and (key not in fresh or self._wrote(records[key]))),
            key=lambda key: records[key].revision if key in records else 0,
        )
        gone = [key for key in records if key.startswith(GATEWAY) and key not in gateways]
        # Concurrently: on a slow store, one write after the other could take longer than a lease lasts.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(own, records.get(own), (LEAVING if self._leaving else b"") + self._place))
            for key in list(self._held)[:share]:
                group.create_task(self._write(key, records[key], held=True))
            for key in free[: max(0, share - len(self._held))]:
                group.create_task(self._write(key, records.get(key), held=True))
            for key in too_many:
                group.create_task(self._release(key, self._held.pop(key)))
            for key in gone:
                group.create_task(self._release(key, records[key].revision))

    def _wrote(self, record: Record) -> bool:
        """Return whether a lease is in the name of this gateway."""
        return record.value == self.name.encode()

    def _is_fresh(self, record: Record) -> bool:
        """Return whether a lease has changed within its duration, by this gateway's clock."""
        now = time.monotonic()
        revision, since = self._seen.get(record.key, (-1, now))
        if revision != record.revision:
            self._seen[record.key] = (record.revision, now)
            return True
        return now - since < self._seconds

    async def _write(self, key: str, record: Record | None, value: bytes | None = None, *, held: bool = False) -> None:
        revision = record.revision if record is not None else 0
        try:
            written = await self._records.put_record(key, value or self.name.encode(), revision=revision)
        except RecordConflictError:
            self._held.pop(key, None)  # another gateway has written it since
            return
        self._seen[key] = (written.revision, time.monotonic())
        if held:
            self._held[key] = written.revision

    async def _release(self, key: str, revision: int) -> None:
        try:
            await self._records.delete_record(key, revision=revision)
        except (RecordConflictError, UnavailableError):
            return
