"""Which of several gateways on one engine follows which workflows.

Workflows are dealt to shards, and each shard is one record that its holder writes again and again. Who sees a record unchanged
for long enough, by its own clock, may take the shard: no two clocks are compared. A holder that cannot write stops by itself, and
one that was paused and does not know yet can do no harm: what two followers append, the log keeps once.
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
from wakeline.gateway.log import Engine, Record
from wakeline.gateway.runtime import supervised

SHARDS: Final = 16
_SHARD: Final = "leases/shard/"
_GATEWAY: Final = "leases/gateway/"
_log = structlog.get_logger(__name__)


class Leases:
    """The shards that this gateway holds.

    Args:
        engine: Where the records are.
        seconds: For how long a record that is not written again is respected.
        changed: Called when this gateway has got or lost shards.
    """

    def __init__(self, engine: Engine, seconds: float, changed: Callable[[], None]) -> None:
        self.name = secrets.token_hex(8)
        self._engine = engine
        self._seconds = seconds
        self._changed = changed
        self._held: dict[str, int] = {}  # the revision we wrote, by key
        self._seen: dict[str, tuple[int, float]] = {}
        self._written = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def mine(self, workflow_id: str) -> bool:
        """Whether this gateway is to follow the workflow."""
        return f"{_SHARD}{crc32(workflow_id.encode()) % SHARDS}" in self._held

    async def start(self) -> None:
        """Take what is free, and go on in the background."""
        await self._round()
        self._task = supervised("leases", self._go_on)

    async def stop(self) -> None:
        """Give back what is held, so that others need not wait."""
        await cancel_all(self._task)
        for key, revision in list(self._held.items()):
            await self._give_back(key, revision)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 4)
            await self._round()

    async def _round(self) -> None:
        before = set(self._held)
        try:
            async with asyncio.timeout(self._seconds / 2):
                await self._renew_and_take()
            self._written = time.monotonic()
        except Exception as error:  # noqa: BLE001 - who no longer renews must know that nothing is theirs any more
            if time.monotonic() - self._written > self._seconds / 2:
                # By the time that others may take them they must not be ours.
                self._held.clear()
            _log.warning("leases cannot be written", error=repr(error))
        if set(self._held) != before:
            self._changed()

    async def _renew_and_take(self) -> None:
        own = f"{_GATEWAY}{self.name}"
        records = {record.key: record for record in await self._engine.records("leases/")}
        await self._write(own, records.get(own))
        fresh = {key for key, record in records.items() if self._is_fresh(record)}
        gateways = {key for key in fresh if key.startswith(_GATEWAY)} | {own}
        share = math.ceil(SHARDS / len(gateways))
        for key in [f"{_SHARD}{number}" for number in range(SHARDS)]:
            record = records.get(key)
            held = key in self._held and record is not None and record.revision == self._held[key]
            if not held:
                self._held.pop(key, None)
            if held and len(self._held) > share:
                await self._give_back(key, self._held.pop(key))
            elif (held or record is None or key not in fresh) and len(self._held) - held < share:
                await self._write(key, record, held=True)
        for key in set(records) - fresh:
            if key.startswith(_GATEWAY) and key != own:
                await self._give_back(key, records[key].revision)

    def _is_fresh(self, record: Record) -> bool:
        now = time.monotonic()
        revision, since = self._seen.get(record.key, (-1, now))
        if revision != record.revision:
            self._seen[record.key] = (record.revision, now)
            return True
        return now - since < self._seconds

    async def _write(self, key: str, record: Record | None, *, held: bool = False) -> None:
        try:
            written = await self._engine.put_record(
                key, self.name.encode(), revision=record.revision if record is not None else 0
            )
        except RecordConflictError:
            self._held.pop(key, None)  # another gateway was faster
            return
        self._seen[key] = (written.revision, time.monotonic())
        if held:
            self._held[key] = written.revision

    async def _give_back(self, key: str, revision: int) -> None:
        try:
            await self._engine.delete_record(key, revision=revision)
        except (RecordConflictError, UnavailableError):
            return
