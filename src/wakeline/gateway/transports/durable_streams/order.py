"""`Stream-Seq`: a writer's own order of its appends, which must increase.

The last value of each stream is a record, written after the append and before its acknowledgement. So no append goes back
behind an acknowledged one; an append that was not acknowledged, because the gateway was killed before that, may be sent
again. `gateway/sessions/deletion.py` deletes the record with the session.
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
        """Check a `Stream-Seq` and append inside the block, one caller at a time for each stream.

        After the block, `seq` is the stream's last value, unless it raised.

        Raises:
            StreamConflictError: `seq` does not come after the last value.
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
            except RecordConflictError:  # a deletion has just removed the record of an earlier epoch
                record = await self._engine.get_record(_PREFIX + stream.name)
                revision = record.revision if record else 0
            else:
                break
        state = await self._engine.state(stream.name)
        if state is None or state.epoch != stream.epoch:  # a deletion that overtook this write missed the record
            with suppress(RecordConflictError):
                await self._engine.delete_record(written.key, revision=written.revision, erase=True)
