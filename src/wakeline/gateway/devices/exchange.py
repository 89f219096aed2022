"""Exchanges presence between the gateways on a shared store.

A gateway keeps a small record for each session that devices are connected to, and writes those that have changed about once a
second. It reads the records of other gateways for the sessions that are watched here, as often, and for a single session when
somebody asks. The lease of a gateway (`gateway/ownership`) keeps all of its records alive: they count for nothing once it has
expired, and are removed. Nothing is written for a device that stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, Self, TypeAlias
from weakref import WeakValueDictionary
from zlib import crc32

import msgspec
import structlog

from wakeline.background import cancel_all
from wakeline.errors import RecordConflictError, UnavailableError
from wakeline.gateway.devices.presence import Presence, Who
from wakeline.gateway.log import MAX_RECORD_BYTES, Records
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.runtime import Grouped, log_failure, supervised

EVERY_SECONDS: Final = 0.75
"""Seconds between two exchanges: a change is seen elsewhere after at most two of them."""

_CLEAN_SECONDS: Final = 5.0
_LAST_SECONDS: Final = 5.0
_AT_ONCE: Final = 64
_KEYS: Final = 1_000
_PREFIX: Final = "presence/"
_log = structlog.get_logger(__name__)


class _Present(msgspec.Struct, frozen=True):
    """A part of a session's devices at one gateway.

    Attributes:
        parts: Into how many records they are divided; counts in the first one.
        devices: User and id of each.
    """

    parts: int
    devices: list[Who]


_Stored: TypeAlias = dict[str, tuple[bytes, int]]
"""The value and the revision of each of a session's records, by key."""

_decode = msgspec.json.Decoder(_Present).decode


class Exchange:
    """Exchanges the presence of this gateway with the others inside the block.

    Args:
        presence: The devices that are connected here.
        records: The shared store.
        ownership: Knows which gateways are alive.
    """

    def __init__(self, presence: Presence, records: Records, ownership: Ownership) -> None:
        self._presence = presence
        self._records = records
        self._ownership = ownership
        self._changed: set[str] = set()
        self._stored: dict[str, _Stored] = {}  # by session
        self._reads: WeakValueDictionary[str, Grouped[frozenset[Who]]] = WeakValueDictionary()
        self._lapses = ownership.lapses
        self._cleaned_at, self._cleaned_for = 0.0, set[str]()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._presence.share(self._changed.add, self.elsewhere)
        self._task = supervised("presence", self._exchange_for_ever)
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._task)
        with suppress(TimeoutError, UnavailableError):  # then they count until the lease expires
            async with asyncio.timeout(_LAST_SECONDS):
                await self._write(self._stored.keys() | self._changed)

    async def elsewhere(self, session: str) -> frozenset[Who]:
        """Return the devices that are connected to a session at other gateways."""
        read = self._reads.setdefault(session, Grouped())

        async def work() -> frozenset[Who]:
            return (await self._read([session]))[session]

        return await read.do(work)

    async def _exchange_for_ever(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self._exchange()
            except UnavailableError as error:
                log_failure(_log, "presence cannot be exchanged with other gateways", error)

    async def _exchange(self) -> None:
        if self._lapses != self._ownership.lapses:
            # This gateway was paused for so long that others may have removed its records.
            self._lapses = self._ownership.lapses
            for session, stored in self._stored.items():
                stored.update({key: (b"", revision) for key, (_, revision) in stored.items()})
                self._changed.add(session)
        changed = set(self._changed)
        self._changed.clear()
        await self._write(changed)
        watched = self._presence.watched()
        for some in _batches(watched, _KEYS):
            for session, devices in (await self._read(some)).items():
                self._presence.put_elsewhere(session, devices)
        if monotonic() >= self._cleaned_at + _CLEAN_SECONDS:
            await self._clean()

    async def _write(self, sessions: set[str]) -> None:
        """Store who is connected to these sessions; the next exchange repeats it after an error."""
        for some in _batches(sorted(sessions), _AT_ONCE):
            done = await asyncio.gather(*map(self._write_session, some), return_exceptions=True)
            failed = [error for error in done if isinstance(error, BaseException)]
            if failed:
                self._changed |= sessions
                raise failed[0]

    async def _write_session(self, session: str) -> None:
        stored = self._stored.setdefault(session, {})
        wanted = self._divided(session, self._presence.present(session), len(stored))
        # The first record is written last, because it names the others.
        for key in reversed(wanted):
            if key not in stored or stored[key][0] != wanted[key]:
                await self._put(stored, key, wanted[key])
        for key in [key for key in stored if key not in wanted]:
            await self._put(stored, key, None)
        if not stored:
            del self._stored[session]

    def _divided(self, session: str, devices: Sequence[Who], parts: int) -> dict[str, bytes]:
        """Divide devices into as many records as they need, and at least `parts`."""
        if not devices:
            return {}
        parts = max(parts, 1)
        while True:
            divided: list[list[Who]] = [[] for _ in range(parts)]
            for who in devices:
                divided[crc32("\n".join(who).encode()) % parts].append(who)
            values = [msgspec.json.encode(_Present(parts, some)) for some in divided]
            if max(map(len, values)) <= MAX_RECORD_BYTES // 2:  # so that a few more devices need no other division
                return {_key(self._ownership.name, n, session): value for n, value in enumerate(values)}
            parts *= 2

    async def _put(self, stored: _Stored, key: str, value: bytes | None) -> None:
        """Write or remove a record that only this gateway writes."""
        revision = stored[key][1] if key in stored else 0
        stored[key] = (b"", revision)  # if the write fails, it is unknown what the record has
        while True:
            try:
                revision = await self._records.change_record(key, value, revision=revision)
                break
            except RecordConflictError:  # the answer to an earlier write was lost, or another gateway has removed it
                record = await self._records.get_record(key)
                revision = record.revision if record else 0
                if value is None and record is None:
                    break
        if value is None:
            del stored[key]
        else:
            stored[key] = (value, revision)

    async def _read(self, sessions: Sequence[str]) -> dict[str, frozenset[Who]]:
        """Return who is connected to each of these sessions at other gateways."""
        leases = await self._ownership.gateways()
        gateways = [name for name, alive in leases.items() if alive and name != self._ownership.name]
        found: dict[str, set[Who]] = {session: set() for session in sessions}
        names = {_key(gateway, 0, session): (gateway, session) for gateway in gateways for session in sessions}
        while names:  # first the first record of each session, then the further ones that it names
            further: dict[str, tuple[str, str]] = {}
            for some in _batches(names, _KEYS):
                for key, record in (await self._records.get_records(some)).items():
                    (gateway, session), present = names[key], _decode(record.value)
                    found[session].update(present.devices)
                    if key == _key(gateway, 0, session):
                        more = range(1, present.parts)
                        further |= {_key(gateway, number, session): (gateway, session) for number in more}
            names = further
        return {session: frozenset(devices) for session, devices in found.items()}

    async def _clean(self) -> None:
        """Remove the records of gateways that have ended, when a gateway has begun or ended.

        A gateway has ended when others have removed its expired lease. If it was paused only, it misses the lease first
        and then writes its records again.
        """
        self._cleaned_at = monotonic()
        if self._cleaned_for == set(await self._ownership.gateways()):
            return
        # The records are read before the leases: a gateway writes its lease before any of these records.
        records = await self._records.records(_PREFIX)
        gateways = {*await self._ownership.gateways(), self._ownership.name}
        for record in records:
            if record.key.split("/")[1] not in gateways:
                await self._records.remove(record)
        self._cleaned_for = gateways


def _batches(names: Iterable[str], size: int) -> Iterator[list[str]]:
    listed = list(names)
    return (listed[at : at + size] for at in range(0, len(listed), size))


def _key(gateway: str, part: int, session: str) -> str:
    return f"{_PREFIX}{gateway}/{part}/{session}"
