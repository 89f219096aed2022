"""The records: one subject for each key, of which the stream keeps the last message.

A gateway follows the stream, and knows which message has each key's value. Before it reads, it asks the stream's leader for the
last sequence, and waits until it has followed the stream that far. Values that were read lately are in memory.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from wakeline.errors import RecordConflictError
from wakeline.gateway.log.engines.nats.link import Link
from wakeline.gateway.log.engines.nats.messages import RecordMessage, decode_record, encode
from wakeline.gateway.log.engines.nats.streams import Stream
from wakeline.gateway.log.engines.nats.tail import Tail
from wakeline.gateway.log.values import Record, check_record
from wakeline.retry import Backoff

_CACHE_BYTES: Final = 64 * 1024 * 1024
_OVERHEAD: Final = 200
_TOGETHER: Final = 64


class RecordStore:
    """Reads and changes records.

    Args:
        link: The connection.
        stream: Their stream.

    Attributes:
        removed: Records that were removed: the sequence of their last message, and when that arrived here.
    """

    def __init__(self, link: Link, stream: Stream) -> None:
        self.removed: dict[str, tuple[int, float]] = {}
        self.tail = Tail(link, stream, self._follow, self._follow, self._settle)
        self._link = link
        self._stream = stream
        self._known: dict[str, int] = {}
        self._sizes: dict[str, int] = {}  # of the values
        self._keys: list[str] = []
        self._values: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0

    def _follow(self, seq: int, payload: bytes) -> None:
        message = decode_record(payload)
        self._take(seq, message.key, message.value)

    def _settle(self, last: set[int], end: int) -> None:
        for key, seq in list(self._known.items()):
            if seq <= end and seq not in last:
                self._drop(seq)
                del self._known[key], self._sizes[key]
                del self._keys[bisect_left(self._keys, key)]

    def _take(self, seq: int, key: str, value: bytes | None) -> None:
        known = self._known.get(key, 0)
        if max(known, self.removed.get(key, (0, 0.0))[0]) >= seq:
            return
        if known:
            self._drop(known)
        if value is None:
            if known:
                del self._known[key], self._sizes[key]
                del self._keys[bisect_left(self._keys, key)]
            self.removed[key] = (seq, time.monotonic())
            return
        if not known:
            insort(self._keys, key)
        self.removed.pop(key, None)
        self._known[key] = seq
        self._sizes[key] = len(value)
        self._cache(seq, value)

    def _cache(self, seq: int, value: bytes) -> None:
        self._values[seq] = value
        self._size += len(value) + _OVERHEAD
        while self._size > _CACHE_BYTES:
            self._drop(next(iter(self._values)))

    def _drop(self, seq: int) -> None:
        value = self._values.pop(seq, None)
        if value is not None:
            self._size -= len(value) + _OVERHEAD

    async def get(self, keys: Sequence[str]) -> dict[str, Record]:
        """Return the records under keys, as of one moment; see `Records.get_records`."""
        return {record.key: record for record in await self._read(lambda: list(dict.fromkeys(keys)))}

    async def listed(self, prefix: str, after: str = "", limit: int | None = None) -> list[Record]:
        """Return records whose keys begin with a prefix; see `Records.records_after`."""
        return await self._read(lambda: self._beginning(prefix, after, limit))

    async def count(self, prefix: str) -> tuple[int, int]:
        """Return the number and the bytes of the records of a prefix; see `Records.count_records`."""
        await self.tail.fresh()
        keys = self._beginning(prefix)
        return len(keys), sum(self._sizes[key] for key in keys)

    def _beginning(self, prefix: str, after: str = "", limit: int | None = None) -> list[str]:
        at = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        found: list[str] = []
        while at < len(self._keys) and self._keys[at].startswith(prefix) and len(found) != limit:
            found.append(self._keys[at])
            at += 1
        return found

    async def _read(self, select: Callable[[], list[str]]) -> list[Record]:
        while True:
            await self.tail.fresh()
            wanted = [(key, self._known[key]) for key in select() if key in self._known]
            values = {seq: self._values.get(seq) for _, seq in wanted}
            missing = [seq for seq, value in values.items() if value is None]
            for at in range(0, len(missing), _TOGETHER):
                some = missing[at : at + _TOGETHER]
                found = await asyncio.gather(*(self._link.get(self._stream.name, seq=seq) for seq in some))
                for seq, one in zip(some, found, strict=True):
                    values[seq] = decode_record(one[1]).value if one is not None else None
            records = [Record(key, value, seq) for key, seq in wanted if (value := values[seq]) is not None]
            if len(records) == len(wanted):
                for record in records:
                    if record.revision in missing and self._known.get(record.key) == record.revision:
                        self._cache(record.revision, record.value)
                return records
            # One was changed in between: the others are then not of the same moment.

    async def change(self, key: str, value: bytes | None, revision: int) -> int:
        """Write or remove a record; see `Records.change_record`."""
        check_record(key, value)
        subject, backoff = self._stream.subject(key), Backoff(0.01, 0.5)
        prev = revision or self.removed.get(key, (0, 0.0))[0]
        while revision or value is not None:
            id_ = secrets.token_hex(8)
            payload = encode(RecordMessage(key, id_, prev, value))
            seq = await self._link.append(self._stream.name, subject, payload, id=id_, prev=prev)
            if seq is not None:
                self._take(seq, key, value)
                return seq if value is not None else 0
            found = await self._link.last(self._stream.name, subject)
            now = decode_record(found[1]).value if found is not None else None
            last = found[0] if found is not None else 0
            if last != prev and (revision or now is not None):
                break
            prev = last
            await backoff.wait()
        raise RecordConflictError(f"expected {key[:64]!r} at revision {revision}, it has another one")

    def forget(self, key: str, seq: int) -> None:
        """Forget a record that was removed with this message."""
        if self.removed.get(key, (0, 0.0))[0] == seq:
            del self.removed[key]
