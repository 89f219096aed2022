"""Records: the stored form of positions.

A session's devices are spread over `PARTS` records.

A single record would hold 100 KB at a thousand devices and be rewritten at each acknowledgement. A record per device
would need as many writes as devices after each event (docs/decisions/0009-positions-in-parts.md).
"""

from __future__ import annotations

import math
import time
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from wakeline.events import timestamp
from wakeline.gateway.log import MAX_RECORD_BYTES, Engine, Record

PARTS: Final = 16
Key: TypeAlias = tuple[str, str]
"""A user and the id of one of the user's devices."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A device's stored positions, or a change to them: merging keeps the larger position.

    Attributes:
        user: The user whose device it is.
        device: The device's id.
        delivered: The offset after the last event written to the device; None if none was.
        seen: The offset after the last event that the device acknowledged; None if it never acknowledged.
        active: When the device was last connected or acknowledged, in milliseconds of Unix time.
    """

    user: str
    device: str
    delivered: int | None
    seen: int | None
    active: int

    @property
    def key(self) -> Key:
        """The key of the device within its session."""
        return self.user, self.device

    def merged(self, other: Entry | None) -> Entry:
        """Return an entry with the larger of each position."""
        if other is None:
            return self
        return Entry(
            self.user,
            self.device,
            _larger(self.delivered, other.delivered),
            _larger(self.seen, other.seen),
            max(self.active, other.active),
        )


class _Record(msgspec.Struct, frozen=True):
    epoch: str
    devices: list[Entry]


_decoder = msgspec.json.Decoder(_Record)


def part_of(key: Key) -> int:
    """Return the number of a device's part, the same in every process."""
    return crc32("\n".join(key).encode()) % PARTS


async def stored(engine: Engine, session: str, epoch: str, number: int) -> dict[Key, Entry]:
    """Return the stored entries of a part, whichever gateway wrote them."""
    return decode(await engine.get_record(record_key(session, number)), epoch) or {}


async def erase(engine: Engine, session: str, number: int, *, but: str | None) -> None:
    """Delete a part's record, unless it belongs to the epoch `but`."""
    while (record := await engine.get_record(record_key(session, number))) is not None:
        if _decoder.decode(record.value).epoch == but:
            return
        await engine.remove(record)


def now() -> int:
    """Return the current Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def moment(milliseconds: int) -> str:
    """Return a time in milliseconds in the format of the API."""
    return timestamp(milliseconds / 1000)


def record_key(session: str, number: int) -> str:
    """Return the key of a part's record."""
    return f"positions/{number:x}/{session}"


def forget_over(entries: dict[Key, Entry], most: int) -> None:
    """Forget a user's longest absent devices if one part has more than its share of `most`.

    Without tokens all devices belong to one user, and only the record's size is limited.
    """
    share = math.ceil(most / PARTS)
    if not most or len(entries) <= share:
        return
    of_user: dict[str, list[Entry]] = {}
    for entry in entries.values():
        of_user.setdefault(entry.user, []).append(entry)
    for user, devices in of_user.items():
        if user and len(devices) > share:
            for entry in sorted(devices, key=lambda device: device.active)[:-share]:
                del entries[entry.key]


def encode(epoch: str, entries: dict[Key, Entry]) -> bytes:
    """Return the record's bytes.

    A record has room for some 2,500 devices. If there are more, the longest absent ones are forgotten.
    """
    value = msgspec.json.encode(_Record(epoch, list(entries.values())))
    while len(value) > MAX_RECORD_BYTES:
        for key in sorted(entries, key=lambda key: entries[key].active)[: len(entries) // 8 + 1]:
            del entries[key]
        value = msgspec.json.encode(_Record(epoch, list(entries.values())))
    return value


def decode(record: Record | None, epoch: str) -> dict[Key, Entry] | None:
    """Return a record's entries; None if there is no record or it belongs to another epoch."""
    found = _decoder.decode(record.value) if record else None
    return {entry.key: entry for entry in found.devices} if found and found.epoch == epoch else None


def _larger(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
