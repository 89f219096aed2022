"""`Stream-Seq`: what a writer appends must come after what it appended before, by its own names for them.

The last one of each stream is a record, written before the append is acknowledged. So what was acknowledged is never gone back
behind; an append that nobody was told of, because the gateway was killed in between, may be sent again.
The record goes with the session: `gateway/sessions/deletion.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from wakeline.errors import RecordConflictError, StreamConflictError
from wakeline.gateway.log import Engine
from wakeline.gateway.transports.durable_streams.stream import Stream

_PREFIX: Final = "stream-seq/"


class _Last(msgspec.Struct):
    epoch: str
    seq: str


_decoder = msgspec.json.Decoder(_Last)


class WriterOrder:
    """The last `Stream-Seq` of each stream.

    Args:
        engine: The log.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def next(self, stream: Stream, seq: str) -> AsyncIterator[None]:
        """A block that appends: one at a time for each stream, and none that goes back. If it succeeds, `seq` is the last.

        Raises:
            StreamConflictError: `seq` does not come after the last one.
        """
        lock = self._locks.setdefault(stream.name, asyncio.Lock())
        async with lock:
            record = await self._engine.get_record(_PREFIX + stream.name)
            last = _decoder.decode(record.value) if record else None
            if last is not None and last.epoch == stream.epoch and seq <= last.seq:
                raise StreamConflictError(f"expected a Stream-Seq after {last.seq!r}, got {seq!r}")
            yield
            await self._put(stream, seq, record.revision if record else 0)

    async def _put(self, stream: Stream, seq: str, revision: int) -> None:
        value = msgspec.json.encode(_Last(stream.epoch, seq))
        while True:
            try:
                written = await self._engine.put_record(_PREFIX + stream.name, value, revision=revision)
            except RecordConflictError:  # what was left of an earlier life has just been removed
                record = await self._engine.get_record(_PREFIX + stream.name)
                revision = record.revision if record else 0
            else:
                break
        state = await self._engine.state(stream.name)
        if state is None or state.epoch != stream.epoch:  # it was deleted meanwhile, and what it had with it
            with suppress(RecordConflictError):
                await self._engine.delete_record(written.key, revision=written.revision, erase=True)
