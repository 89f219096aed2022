"""How positions are stored: a session's devices in `PARTS` records, each under compare-and-set.

One record for all would be 100 KB at a thousand devices and is written anew whenever one of them acknowledges; a record for
each would be as many writes whenever an event has gone out to all (docs/decisions/0009-positions-in-parts.md).
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from wakeline.errors import RecordConflictError
from wakeline.events import timestamp
from wakeline.gateway.log import Engine, Record

PARTS: Final = 16
MAX_RECORD_BYTES: Final = 512 * 1024
"""A record over this loses the devices that were away longest; some 5,000 fit."""

Key: TypeAlias = tuple[str, str]
"""A user and the id of one of its devices."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A device as it is stored; also what is to be added to that: the larger position counts.

    Attributes:
        user: Whose device it is.
        device: Its id.
        delivered: The offset after what was written to it; None if nothing ever was.
        seen: The offset after what it acknowledged; None if it never did.
        active: When it was last connected or heard of, in milliseconds of unix time.
    """

    user: str
    device: str
    delivered: int | None
    seen: int | None
    active: int

    @property
    def key(self) -> Key:
        """Names it in its session."""
        return self.user, self.device

    def merged(self, other: Entry | None) -> Entry:
        """The larger of each position."""
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
    """Which part a device is in, the same in every process."""
    return crc32("\n".join(key).encode()) % PARTS


async def stored(engine: Engine, session: str, epoch: str, number: int) -> dict[Key, Entry]:
    """What one part holds now, whichever gateway has written it."""
    return decode(await engine.get_record(record_key(session, number)), epoch) or {}


async def erase(engine: Engine, session: str, number: int, *, but: str | None) -> None:
    """Remove one part's record, unless it is of the life `but`."""
    while True:
        record = await engine.get_record(record_key(session, number))
        if record is None or _decoder.decode(record.value).epoch == but:
            return
        try:
            await engine.delete_record(record.key, revision=record.revision)
        except RecordConflictError:
            continue
        return


def now() -> int:
    """This moment in milliseconds of unix time."""
    return time.time_ns() // 1_000_000


def moment(milliseconds: int) -> str:
    """A moment as it is answered."""
    return timestamp(datetime.fromtimestamp(milliseconds / 1000, UTC))


def record_key(session: str, number: int) -> str:
    """Where a part is kept."""
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
    """The record; where it would be too large, the devices that were away longest are forgotten."""
    value = msgspec.json.encode(_Record(epoch, list(entries.values())))
    while len(value) > MAX_RECORD_BYTES:
        for key in sorted(entries, key=lambda key: entries[key].active)[: len(entries) // 8 + 1]:
            del entries[key]
        value = msgspec.json.encode(_Record(epoch, list(entries.values())))
    return value


def decode(record: Record | None, epoch: str) -> dict[Key, Entry] | None:
    """What a record holds; None if there is none, or of another life."""
    found = _decoder.decode(record.value) if record else None
    return {entry.key: entry for entry in found.devices} if found and found.epoch == epoch else None


def _larger(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
