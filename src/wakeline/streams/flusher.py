"""The sending side: from `publish` to a signal that the server has accepted.

Events are converted and measured as they come, divided into batches that the server accepts, and sent one batch at a
time. A batch keeps its sequence number until it is acknowledged or abandoned, also over cancellation, so that the host
recognises a repetition.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle
from temporalio.converter import PayloadConverter
from temporalio.service import RPCError

from wakeline.background import supervised, wait_at_most
from wakeline.buffer import Buffer, WhenFull
from wakeline.errors.publishing import BufferFullError, ValueRefusedError
from wakeline.logs import get_logger
from wakeline.outages import Outage
from wakeline.presentable import converted, said
from wakeline.reports import Reports
from wakeline.retry import Backoff
from wakeline.streams.budget import SignalBudget
from wakeline.streams.errors import DroppedEvent, PublishDroppedError, SignalLimitError, ValueTooLargeError
from wakeline.streams.flushed import OnFlushed, surrounding_on_flushed
from wakeline.streams.wire import (
    PUBLISH_SIGNAL,
    PublishEntry,
    PublishInput,
    decode_payload,
    encode_payload,
    wire_size,
)
from wakeline.temporal.failures import backoff, is_signal_limit, is_too_large, is_transient
from wakeline.text import whole

logger = get_logger(__name__)

# The server refuses a signal of 2 MB. A batch stays at half of it: larger ones gain nothing, and a codec may add to it.
MAX_BATCH_BYTES = 1_000_000
MAX_VALUE_BYTES = 1_900_000
# A call without an answer is made again after this, because a dead connection may never give one.
CALL_TIMEOUT = timedelta(seconds=30)
_HIGH_WATER_BYTES = 64_000_000
# How long a host whose run accepts no more signals has to continue as new.
_SIGNAL_LIMIT_GRACE = 30.0
_AT_LIMIT = "were abandoned, because the run accepts no more signals"


@dataclass
class _Batch:
    entries: list[PublishEntry]
    sequence: int
    since: float
    backoff: Backoff = field(default_factory=lambda: backoff())


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
        on_dropped: Callable[[PublishDroppedError], None] | None = None,
        on_flushed: OnFlushed | None = None,
        max_buffered_items: int | None = None,
        max_buffered_bytes: int | None = None,
        when_full: WhenFull = "block",
    ) -> None:
        for name, limit in (("max_buffered_items", max_buffered_items), ("max_buffered_bytes", max_buffered_bytes)):
            if limit is not None and limit < 1:
                raise ValueError(f"expected {name} of at least 1, got {limit}")
        self._handle = handle
        self._budget = SignalBudget(handle)
        self._outage = Outage(logger, f"Publishing to workflow {handle.id}")
        self.buffer: Buffer[PublishEntry] = Buffer(
            _size, max_items=max_buffered_items, max_bytes=max_buffered_bytes, when_full=when_full
        )
        self._is_high = False
        self._converter = converter
        self._batch_interval = batch_interval.total_seconds()
        self._max_batch_size = max_batch_size
        self._max_retry = max_retry_duration.total_seconds()
        self._on_flushed = surrounding_on_flushed.get() if on_flushed is None else on_flushed
        self._publisher_id = uuid.uuid4().hex[:16]
        self._sequence = 0
        self._batch: _Batch | None = None
        self._send_lock = asyncio.Lock()
        self._reports: Reports[PublishEntry, PublishDroppedError] = Reports(
            f"workflow {handle.id}", self._make_report, on_dropped
        )
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = 0
        self._users = 0

    def accept(self, topic: str, value: Any, *, force_flush: bool) -> None:
        """Convert and buffer one value. See `TopicHandle.publish` for the errors."""
        self._reports.raise_next()
        entry = self._convert(topic, value)
        if not self.buffer.offer(entry, topic):
            self._announce(urgent=True)
            # This thread may wait for room only if another one sends.
            may_block = self._task is not None and threading.get_ident() != self._thread
            dropped = self.buffer.put(entry, topic, may_block=may_block)
            if dropped is None:
                raise BufferFullError(
                    f"expected room for an event of topic {topic!r}, got {len(self.buffer)} events of "
                    f"{self.buffer.bytes} bytes that wait to be sent to workflow {self._handle.id}",
                    events=len(self.buffer),
                    bytes=self.buffer.bytes,
                )
            self.buffer.finish(len(dropped))
        self._announce(force_flush)

    async def accept_waiting(self, topic: str, value: Any, *, force_flush: bool) -> None:
        """Do as `accept`, and wait for room instead of applying the policy."""
        self._reports.raise_next()
        entry = self._convert(topic, value)
        while not self.buffer.offer(entry, topic):
            if self._task is None:
                # No other task sends.
                await self._send_up_to(self.buffer.taken)
            else:
                self._announce(urgent=True)
                await self.buffer.room(entry)
            try:
                self._reports.raise_next()
            except PublishDroppedError:
                self.buffer.wake()  # or the place that woke this task would stay free while others wait
                raise
        self._announce(force_flush)

    async def flush(self) -> None:
        """Send all events that were accepted before, and wait until the server has them.

        Raises:
            PublishDroppedError: Events were abandoned since the last report.
        """
        await self._send_up_to(self.buffer.taken)
        self._reports.raise_next()

    def _announce(self, urgent: bool) -> None:
        if self.buffer.bytes > _HIGH_WATER_BYTES and not self._is_high:
            logger.warning("Over %d MB wait to be sent to workflow %s", _HIGH_WATER_BYTES // 10**6, self._handle.id)
        # Logged once each time the mark is passed, not for each event above it.
        self._is_high = self.buffer.bytes > (_HIGH_WATER_BYTES // 2 if self._is_high else _HIGH_WATER_BYTES)
        task = self._task
        if task is None:
            return
        full = self.buffer.bytes >= MAX_BATCH_BYTES or len(self.buffer) >= (self._max_batch_size or 1 << 60)
        urgent = urgent or full or self.buffer.is_full()
        if threading.get_ident() == self._thread:
            self._ring(urgent)
        else:
            task.get_loop().call_soon_threadsafe(self._ring, urgent)

    async def start(self) -> None:
        """Send in the background from now on. Calls nest; the last `stop` ends it."""
        self._users += 1
        if self._task is None:
            self._thread = threading.get_ident()
            self.buffer.set_attended(True)
            self._task = supervised(f"publishing to workflow {self._handle.id}", self._run)
            self._ring(urgent=False)

    async def stop(self, failing: bool) -> None:
        """Send all that is buffered, then end sending in the background.

        Args:
            failing: Whether an error is being raised already; abandoned events are then only logged, not to hide it.
        """
        try:
            await self._send_up_to(self.buffer.taken)
        finally:
            self._users -= 1
            if self._users == 0 and self._task is not None:
                self._task.cancel()
                self._task = None
                self.buffer.set_attended(False)  # threads that wait for room are refused now
        try:
            self._reports.raise_next()
        except PublishDroppedError as error:
            if not failing:
                raise
            logger.error("%s", error)

    def _convert(self, topic: str, value: Any) -> PublishEntry:
        try:
            payload = value if isinstance(value, Payload) else converted(self._converter.to_payload, value)
        except Exception as error:
            raise ValueRefusedError(
                f"expected a value that the payload converter can convert for topic {topic!r}, "
                f"got {type(value).__name__}: {said(error)}"
            ) from error
        entry = PublishEntry(whole(topic), encode_payload(payload))
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
            # The first event after a pause is sent at once; the interval after it lets the others gather.
            await self._send_up_to(self.buffer.taken)
            await self._budget.look()
            pause = self._budget.pause()
            await asyncio.sleep(pause)
            rest = max(self._budget.interval(self._batch_interval) - pause, 0)
            await wait_at_most(rest, self._urgent.wait())

    async def _send_up_to(self, target: int) -> None:
        async with self._send_lock:
            while self.buffer.done < target:
                # Kept before the first await: a caller that is cancelled here leaves the batch and its sequence to the next.
                self._batch = self._batch or self._next_batch()
                await self._send(self._batch)

    def _next_batch(self) -> _Batch:
        self._sequence += 1
        entries = self.buffer.take(self._max_batch_size, MAX_BATCH_BYTES)
        return _Batch(entries, self._sequence, since=time.monotonic())

    async def _send(self, batch: _Batch) -> None:
        """Send one batch until it is acknowledged, abandoned, or cut in two."""
        signal = PublishInput(batch.entries, self._publisher_id, batch.sequence)
        while True:
            try:
                await self._handle.signal(PUBLISH_SIGNAL, signal, rpc_timeout=CALL_TIMEOUT)
            except RPCError as error:
                if is_too_large(error.message) and len(batch.entries) > 1:
                    self._halve(batch)
                    return
                grace = self._max_retry
                if is_signal_limit(error):
                    # It passes when the host continues as new, which Temporal has suggested for long.
                    grace = min(grace, _SIGNAL_LIMIT_GRACE)
                # After the retry duration the host may have forgotten this publisher: sending again could double it.
                if not (is_transient(error) or is_signal_limit(error)) or time.monotonic() - batch.since > grace:
                    self._drop(batch, error)
                    return
                await self._pause(batch, error)
            except Exception as error:  # noqa: BLE001  a codec's, which may have to ask for its keys, or a defect
                # Nothing was sent, so nothing doubles.
                if time.monotonic() - batch.since > self._max_retry:
                    self._drop(batch, error)
                    return
                await self._pause(batch, error)
            else:
                self._outage.over()
                self._budget.spend()
                self._finish(batch)
                self._tell_flushed()
                return

    async def _pause(self, batch: _Batch, error: Exception) -> None:
        self._outage.failed(repr(error))
        await batch.backoff.wait()

    def _finish(self, batch: _Batch) -> None:
        self.buffer.finish(len(batch.entries))
        self._batch = None

    def _tell_flushed(self) -> None:
        if self._on_flushed is not None:
            try:
                self._on_flushed(self._handle.id)
            except Exception:
                logger.exception("on_flushed failed")

    def _halve(self, batch: _Batch) -> None:
        """Cut a refused batch in two: the server's limit is lower than ours, or a codec added to it."""
        middle = len(batch.entries) // 2
        self.buffer.put_back(batch.entries[middle:])
        del batch.entries[middle:]

    def _drop(self, batch: _Batch, error: Exception) -> None:
        self._finish(batch)
        at_limit = isinstance(error, RPCError) and is_signal_limit(error)
        self._reports.add(batch.entries, _AT_LIMIT if at_limit else "were abandoned", error)

    def _make_report(self, reason: Exception, what: str, entries: Sequence[PublishEntry]) -> PublishDroppedError:
        events = [DroppedEvent(entry.topic, decode_payload(entry.data)) for entry in entries]
        said = f"{len(events)} events for workflow {self._handle.id} {what}: {reason}"
        report = (SignalLimitError if what == _AT_LIMIT else PublishDroppedError)(said, events=events)
        report.__cause__ = reason
        return report


def _size(entry: PublishEntry) -> int:
    return wire_size(entry.topic, entry.data)
