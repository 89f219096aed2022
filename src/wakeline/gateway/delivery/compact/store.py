"""Stores the fold of one life of a session, in blocks.

A block is the fold of a stretch of the log and never changes. The head names the existing blocks: it is written after the
blocks that it names, and blocks that it no longer names are removed after that. So a crash at any point leaves the state in
the head, and at most some records without a name, which are removed with the session. Neighbouring blocks of similar size are
joined as blocks are added, so that there are few, and each event is rewritten few times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final, TypeVar

import msgspec

from wakeline.compact.fold import Fold
from wakeline.errors import RecordConflictError
from wakeline.gateway.delivery.compact import blocks
from wakeline.gateway.log import MAX_RECORD_BYTES, Engine

RECORD_BYTES: Final = MAX_RECORD_BYTES
"""The largest record, in bytes; a larger block is several records."""

_LARGEST_BLOCK: Final = 4 * 1024 * 1024  # blocks are not joined to larger ones
_AT_ONCE_BYTES: Final = 128 * 1024
_PREFIX: Final = "compact/"
T = TypeVar("T")


class _Named(msgspec.Struct, frozen=True):
    id: str
    first: int
    next: int
    size: int
    records: int


class _Head(msgspec.Struct, frozen=True):
    version: int
    bodies: bool
    blocks: list[_Named]


_decode_head = msgspec.json.Decoder(_Head).decode


class Store:
    """The stored blocks of one life of a session.

    Args:
        engine: Stores the blocks as records.
        epoch: The life.

    Attributes:
        bodies: Whether the blocks have whole plain events, and not only their offsets.
    """

    def __init__(self, engine: Engine, epoch: str) -> None:
        self._engine = engine
        self._prefix = prefix(epoch)
        self._head_key = self._prefix + "head"
        self._revision = 0
        self._blocks: list[_Named] = []
        self.bodies = False

    @property
    def first_offset(self) -> int | None:
        """The first offset in the blocks; None if there are none."""
        return self._blocks[0].first if self._blocks else None

    @property
    def next_offset(self) -> int:
        """The offset after the last block; 0 if there are none."""
        return self._blocks[-1].next if self._blocks else 0

    async def open(self) -> None:
        """Read the head."""
        record = await self._engine.get_record(self._head_key)
        if record is None:
            return
        self._revision = record.revision
        with suppress(msgspec.DecodeError):
            head = _decode_head(record.value)
            if head.version == blocks.VERSION:
                self._blocks, self.bodies = head.blocks, head.bodies

    async def read(self) -> Fold | None:
        """Return the fold in all blocks; None if there are none, or if one is missing or unreadable."""
        whole: Fold | None = None
        for named in self._blocks:
            fold = await self._block(named)
            if fold is None:
                return None
            if whole is None:
                whole = fold
            else:
                whole.extend(fold)
        return whole

    async def append(self, fold: Fold) -> None:
        """Store the fold of the next stretch, which is not changed.

        Raises:
            RecordConflictError: Another gateway has stored a block: open the store again.
            UnavailableError: It cannot be stored now, or it is unknown whether it was.
        """
        bodies = self.bodies if self._blocks else not hasattr(fold.plain, "ranges")
        kept, data = list(self._blocks), await _off_loop(fold.size, blocks.encode, fold)
        joined: Fold | None = None
        replaced: list[_Named] = []
        while kept and kept[-1].size <= 2 * len(data) and kept[-1].size + len(data) <= _LARGEST_BLOCK:
            earlier = await self._block(kept[-1])
            if earlier is None:
                break
            later = fold.copy() if joined is None else joined
            joined, data = await _off_loop(len(data) + kept[-1].size, _joined, earlier, later)
            replaced.append(kept.pop())
        first = (joined or fold).first_offset
        named = await self._write(data, first, fold.next_offset)
        try:
            head = msgspec.json.encode(_Head(blocks.VERSION, bodies, [*kept, named]))
            record = await self._engine.put_record(self._head_key, head, revision=self._revision)
        except RecordConflictError:
            await self._remove(named)
            raise
        self._revision, self._blocks, self.bodies = record.revision, [*kept, named], bodies
        for block in replaced:
            await self._remove(block)

    async def erase(self) -> None:
        """Remove the head as it was read, and its blocks.

        Raises:
            RecordConflictError: Another gateway has changed the head: open the store again. Its blocks may be the only copy
                of events that retention has removed.
            UnavailableError: They cannot be removed now.
        """
        gone, self._blocks = self._blocks, []  # not used again, also if an error comes
        if self._revision:
            await self._engine.delete_record(self._head_key, revision=self._revision)
        self._revision = 0
        for named in gone:
            await self._remove(named)

    async def _block(self, named: _Named) -> Fold | None:
        pieces: list[bytes] = []
        for number in range(named.records):
            record = await self._engine.get_record(self._key(named.id, number))
            if record is None:
                return None
            pieces.append(record.value)
        try:
            return await _off_loop(named.size, blocks.decode, b"".join(pieces))
        except msgspec.DecodeError:
            return None

    async def _write(self, data: bytes, first: int, next_offset: int) -> _Named:
        name = token_hex(8)  # random, so that two gateways never write the same key
        records = range(0, len(data), RECORD_BYTES)
        for number, at in enumerate(records):
            await self._engine.put_record(self._key(name, number), data[at : at + RECORD_BYTES], revision=0)
        return _Named(name, first, next_offset, len(data), len(records))

    async def _remove(self, named: _Named) -> None:
        for number in range(named.records):
            record = await self._engine.get_record(self._key(named.id, number))
            if record is not None:
                await self._engine.remove(record)

    def _key(self, name: str, number: int) -> str:
        return f"{self._prefix}{name}.{number}"


def _joined(earlier: Fold, later: Fold) -> tuple[Fold, bytes]:
    """Extend `earlier` by the fold of the next stretch; return it with its bytes."""
    earlier.extend(later)
    return earlier, blocks.encode(earlier)


async def _off_loop(size: int, work: Callable[..., T], *given: Any) -> T:
    """Do work on `size` bytes; in a thread if they are many, so that the loop stays free."""
    return await asyncio.to_thread(work, *given) if size > _AT_ONCE_BYTES else work(*given)


def prefix(epoch: str) -> str:
    """Return the prefix of the keys of a life's records."""
    return f"{_PREFIX}{epoch}/"


async def erase(engine: Engine, keys: str) -> None:
    """Remove all records with a prefix; the head first, so that it never names missing blocks."""
    for record in sorted(await engine.records(keys), key=lambda record: not record.key.endswith("/head")):
        await engine.remove(record)
