"""The sending side: from `publish` to a signal the server has taken.

Events are converted and measured as they come, cut into batches that the server takes, and sent one batch at a time.
A batch keeps its sequence number until it is acknowledged or given up, also over cancellation, so that the host knows
a repetition.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle
from temporalio.converter import PayloadConverter
from temporalio.service import RPCError

from wakeline.streams.errors import DroppedEvent, PublishDroppedError, ValueRefusedError, ValueTooLargeError
from wakeline.streams.rpc import backoff, is_too_large, is_transient
from wakeline.streams.wire import (
    PUBLISH_SIGNAL,
    PublishEntry,
    PublishInput,
    decode_payload,
    encode_payload,
    wire_size,
)

logger = logging.getLogger(__name__)

# The server refuses a signal of 2 MB. A batch stays at half of it: larger ones gain nothing, and a codec may add to it.
MAX_BATCH_BYTES = 1_000_000
MAX_VALUE_BYTES = 1_900_000
# A call without an answer is made again after this, because a dead connection may never give one.
CALL_TIMEOUT = timedelta(seconds=30)
_HIGH_WATER_BYTES = 64_000_000


@dataclass
class _Batch:
    entries: list[PublishEntry]
    sequence: int
    since: float
    failures: int = 0


class Flusher:
    """Buffers events of one publisher and sends them."""

    def __init__(
        self,
        handle: WorkflowHandle[Any, Any],
        converter: PayloadConverter,
        *,
        batch_interval: timedelta,
        max_batch_size: int | None,
        max_retry_duration: timedelta,
        on_dropped: Callable[[PublishDroppedError], None] | None,
    ) -> None:
        self._handle = handle
        self._converter = converter
        self._batch_interval = batch_interval.total_seconds()
        self._max_batch_size = max_batch_size
        self._max_retry = max_retry_duration.total_seconds()
        self._on_dropped = on_dropped
        self._publisher_id = uuid.uuid4().hex[:16]
        self._sequence = 0
        # Events taken, and events done with (acknowledged or given up). Their difference is buffered or in the batch.
        self._taken = 0
        self._done = 0
        self._buffer: deque[PublishEntry] = deque()
        self._buffered_bytes = 0
        self._buffer_lock = threading.Lock()
        self._warned = False
        self._batch: _Batch | None = None
        self._send_lock = asyncio.Lock()
        self._dropped: list[PublishEntry] = []
        self._drop_cause: Exception | None = None
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = 0
        self._users = 0

    def accept(self, topic: str, value: Any, *, force_flush: bool) -> None:
        """Convert and buffer one value. See `TopicHandle.publish` for the errors."""
        self._report()
        entry = self._convert(topic, value)
        with self._buffer_lock:
            self._buffer.append(entry)
            self._taken += 1
            self._buffered_bytes += wire_size(entry.topic, entry.data)
            full = self._buffered_bytes >= MAX_BATCH_BYTES or len(self._buffer) >= (self._max_batch_size or 1 << 60)
            if self._buffered_bytes > _HIGH_WATER_BYTES and not self._warned:
                self._warned = True
                logger.warning("Over %d MB wait to be sent to workflow %s", _HIGH_WATER_BYTES // 10**6, self._handle.id)
        if self._task is None:
            return
        if threading.get_ident() == self._thread:
            self._ring(force_flush or full)
        else:
            self._task.get_loop().call_soon_threadsafe(self._ring, force_flush or full)

    async def flush(self) -> None:
        """Send what was taken until now and wait until the server has it.

        Raises:
            PublishDroppedError: Events were given up since the last report.
        """
        await self._send_up_to(self._taken)
        self._report()

    async def start(self) -> None:
        """Send in the background from now on. Calls nest; the last `stop` ends it."""
        self._users += 1
        if self._task is None:
            self._thread = threading.get_ident()
            self._task = asyncio.create_task(self._run())
            self._ring(urgent=False)

    async def stop(self, failing: bool) -> None:
        """Send all that is buffered, then end sending in the background.

        Args:
            failing: An error is on its way already; log what was given up rather than hide that error.
        """
        try:
            await self._send_up_to(self._taken)
        finally:
            self._users -= 1
            if self._users == 0 and self._task is not None:
                self._task.cancel()
                self._task = None
        try:
            self._report()
        except PublishDroppedError as error:
            if not failing:
                raise
            logger.error("%s", error)

    def _convert(self, topic: str, value: Any) -> PublishEntry:
        try:
            payload = value if isinstance(value, Payload) else self._converter.to_payloads([value])[0]
        except Exception as error:
            raise ValueRefusedError(
                f"expected a value that the payload converter can convert for topic {topic!r}, "
                f"got {type(value).__name__}: {error}"
            ) from error
        entry = PublishEntry(topic, encode_payload(payload))
        size = wire_size(topic, entry.data)
        if size > MAX_VALUE_BYTES:
            raise ValueTooLargeError(
                f"expected at most {MAX_VALUE_BYTES} bytes on the wire for topic {topic!r}, got {size}",
                limit=MAX_VALUE_BYTES,
                size=size,
            )
        return entry

    def _ring(self, urgent: bool) -> None:
        self._wake.set()
        if urgent:
            self._urgent.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._urgent.clear()
            # The first event after a pause goes at once; the interval is waited after it, for the rest to gather.
            await self._send_up_to(self._taken)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), self._batch_interval)

    async def _send_up_to(self, target: int) -> None:
        async with self._send_lock:
            while self._done < target:
                # Kept before the first await: whoever is cancelled here leaves it to the next one, sequence and all.
                self._batch = self._batch or self._next_batch()
                await self._send(self._batch)

    def _next_batch(self) -> _Batch:
        entries: list[PublishEntry] = []
        size = 0
        with self._buffer_lock:
            while self._buffer and len(entries) != self._max_batch_size:
                size += wire_size(self._buffer[0].topic, self._buffer[0].data)
                if size > MAX_BATCH_BYTES and entries:
                    break
                entries.append(self._buffer.popleft())
                self._buffered_bytes -= wire_size(entries[-1].topic, entries[-1].data)
        self._sequence += 1
        return _Batch(entries, self._sequence, since=time.monotonic())

    async def _send(self, batch: _Batch) -> None:
        """Send one batch until it is acknowledged, given up, or cut in two."""
        signal = PublishInput(batch.entries, self._publisher_id, batch.sequence)
        while True:
            try:
                await self._handle.signal(PUBLISH_SIGNAL, signal, rpc_timeout=CALL_TIMEOUT)
            except RPCError as error:
                if is_too_large(error) and len(batch.entries) > 1:
                    self._halve(batch)
                    return
                # After the retry duration the host may have forgotten this publisher: sending again could double it.
                if not is_transient(error) or time.monotonic() - batch.since > self._max_retry:
                    self._drop(batch, error)
                    return
                batch.failures += 1
                await asyncio.sleep(backoff(batch.failures))
            except Exception as error:  # noqa: BLE001  a codec's error or a defect: one batch is lost, not the flusher
                self._drop(batch, error)
                return
            else:
                self._finish(batch)
                return

    def _finish(self, batch: _Batch) -> None:
        self._done += len(batch.entries)
        self._batch = None

    def _halve(self, batch: _Batch) -> None:
        """The server's limit is lower than ours, or a codec added to the batch. It was refused, so nothing doubles."""
        middle = len(batch.entries) // 2
        with self._buffer_lock:
            for entry in reversed(batch.entries[middle:]):
                self._buffer.appendleft(entry)
                self._buffered_bytes += wire_size(entry.topic, entry.data)
        del batch.entries[middle:]

    def _drop(self, batch: _Batch, error: Exception) -> None:
        self._finish(batch)
        self._dropped += batch.entries
        self._drop_cause = error
        logger.warning("Gave up %d events for workflow %s: %s", len(batch.entries), self._handle.id, error)
        if self._on_dropped is not None:
            try:
                self._on_dropped(self._take_report())
            except Exception:
                logger.exception("on_dropped failed")

    def _report(self) -> None:
        if self._dropped:
            raise self._take_report()

    def _take_report(self) -> PublishDroppedError:
        events = [DroppedEvent(entry.topic, decode_payload(entry.data)) for entry in self._dropped]
        cause = self._drop_cause
        self._dropped, self._drop_cause = [], None
        report = PublishDroppedError(
            f"{len(events)} events for workflow {self._handle.id} were given up: {cause}", events=events
        )
        report.__cause__ = cause
        return report
