"""A channel: one session's live devices. Events that were just made durable go to every one of them, encoded once.

A channel knows its session's `tail`: every event below it has been written to all live devices. A device joins only at the
tail, without an `await` between checking and joining, and that is the whole hand-over from history to live: the device has
read the events below the tail from the log, and the channel will write the events above it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog

from wakeline.events import RUN_STARTED, SESSION_SETTLED, Event
from wakeline.gateway.delivery.pages import Pages
from wakeline.gateway.delivery.topics import Topics
from wakeline.gateway.log import Change
from wakeline.gateway.runtime import Slice

CHUNK_BYTES: Final = 64 * 1024
"""Events written to a device at once; with its buffer limit, what bounds a device's memory."""

_SLICE: Final = 256
"""Devices written to before the loop gets a turn, so that a fan-out to thousands delays nobody's acknowledgement."""

_log = structlog.get_logger(__name__)

Encode: TypeAlias = Callable[[str, str, Sequence[Event]], bytes]
"""Makes the wire form of events of a session in an epoch."""


class Lane(msgspec.Struct, frozen=True):
    """What devices must have in common to be written the same bytes.

    Attributes:
        encode: Makes the wire form.
        idle: What keeps an idle connection alive; empty if something else does.
        topics: Only these topics; None for all.
    """

    encode: Encode
    idle: bytes
    topics: Topics | None = None


class Sink(Protocol):
    """A live device's connection, as the hub writes to it. Two calls, because the first is the hot path of it all."""

    @property
    def put(self) -> Callable[[bytes], int]:
        """Hands bytes to the kernel and tells how many it took; raises `OSError` where that is none."""
        ...

    def keep(self, chunk: bytes, taken: int) -> bool:
        """Take care of what `put` did not take; False, keeping nothing, if too much is unsent already."""
        ...


class LiveDevice(Protocol):
    """What the hub asks of a device."""

    lane: Lane
    until_settled: bool

    @property
    def sink(self) -> Sink:
        """Its connection."""
        ...

    def leave_live(self, offset: int) -> None:
        """The device is live no more; it has everything below `offset`."""
        ...


class _Halfway:
    """A fan-out while the loop has its turn: the first offset of the chunk, and who has not got it yet."""

    def __init__(self, first: int, parts: list[list[LiveDevice]]) -> None:
        self.first = first
        self._parts = parts

    @cached_property
    def waiting(self) -> frozenset[LiveDevice]:
        """Made when it is asked for, which is seldom."""
        return frozenset[LiveDevice]().union(*self._parts)


class Channel:
    """One session's live devices, and the events on their way to them.

    Attributes:
        pages: What those who catch up read; made when the session is loaded.
        closed: The session is closed, and the tail is its end.
        deleted: The session is gone; there may be another of its name.
    """

    pages: Pages

    def __init__(self, session: str) -> None:
        self.session = session
        self.epoch = ""
        self.tail = 0
        self.settled = False
        self.closed = False
        self.deleted = False
        self.users = 0
        self.loading = asyncio.Lock()
        self.loaded = False
        self.live: dict[Lane, dict[LiveDevice, None]] = {}
        self._closing = False
        self._pending: list[Event] = []
        self._fan_out: Iterator[None] | None = None
        self._halfway: _Halfway | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def devices(self) -> int:
        """How many devices are live."""
        return sum(map(len, self.live.values()))

    def join(self, device: LiveDevice, offset: int) -> None:
        """Make a device live. The caller has read everything below `offset`, which is the tail, and has not awaited since."""
        assert offset == self.tail, f"expected to join at the tail {self.tail}, got {offset}"
        self.live.setdefault(device.lane, {})[device] = None

    def leave(self, device: LiveDevice) -> None:
        """Forget a device; harmless if it is not live."""
        devices = self.live.get(device.lane)
        if devices is not None:
            devices.pop(device, None)
            if not devices:
                del self.live[device.lane]

    def given(self, device: LiveDevice) -> int | None:
        """The offset below which a live device has been written everything; None if it is not live."""
        if device not in self.live.get(device.lane, ()):
            return None
        halfway = self._halfway
        return halfway.first if halfway is not None and device in halfway.waiting else self.tail

    async def wait_beyond(self, offset: int, seconds: float) -> None:
        """Return when there is an event at `offset`, or there can be none, or after `seconds`."""
        if self.tail > offset or self.deleted:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=seconds)
        finally:
            self._waiting.discard(future)

    def publish(self, events: Sequence[Event]) -> None:
        """Take events that are durable now; they are written when the loop comes round."""
        self._pending += events
        if self.loaded and self._fan_out is None:
            self.start()

    def start(self) -> None:
        """Begin to write what is pending."""
        if self._pending and self._fan_out is None:
            self._fan_out = self._write_pending()
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        assert self._fan_out is not None
        for _ in self._fan_out:
            asyncio.get_running_loop().call_soon(self._step)
            return
        self._fan_out = None
        self.start()  # what came while we wrote goes out together, next
        self._end()

    def _write_pending(self) -> Iterator[None]:
        """Write everything pending; yield after each slice of devices, and after some milliseconds."""
        events, self._pending = [e for e in self._pending if e.offset >= self.tail], []
        work = Slice()
        for chunk in within(CHUNK_BYTES, events):
            first = chunk[0].offset
            if first > self.tail:  # something in between was not told to us: only the log has it
                self._all_leave(self.tail)
            self.tail = chunk[-1].offset + 1
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)
            # Those who join from here on join at the new tail and have this chunk from the log.
            lanes = [(lane, list(devices)) for lane, devices in self.live.items()]
            for event in chunk:
                if event.topic in (RUN_STARTED, SESSION_SETTLED):
                    self.settled = event.topic == SESSION_SETTLED
            for number, (lane, devices) in enumerate(lanes):
                if work.over():  # lanes are few, or of few devices each
                    self._halfway = _Halfway(first, [waiting for _, waiting in lanes[number:]])
                    yield
                    self._halfway, work = None, Slice()
                for done in self._write_lane(lane, devices, chunk, first):
                    later = [waiting for _, waiting in lanes[number + 1 :]]
                    self._halfway = _Halfway(first, [devices[done:], *later])
                    yield
                    self._halfway, work = None, Slice()
            if self.settled:
                self._all_leave(self.tail, only_until_settled=True)
            if work.over():
                yield
                work = Slice()

    def _write_lane(self, lane: Lane, devices: list[LiveDevice], chunk: list[Event], first: int) -> Iterator[int]:
        """Write a chunk to a lane's devices; yields how many have it, after each slice of them."""
        matching = chunk if lane.topics is None else [e for e in chunk if e.topic in lane.topics]
        if not matching:
            return
        try:
            encoded = lane.encode(self.session, self.epoch, matching)
        except Exception:  # noqa: BLE001 - a lane that cannot be encoded must not silence the others
            _log.exception("events could not be encoded", session=self.session)
            for device in devices:
                self.leave(device)
                device.leave_live(first)
            return
        for start in range(0, len(devices), _SLICE):
            if start:
                yield start
            live = self.live.get(lane, {})  # since the chunk was begun, others had their turn, in earlier lanes too
            part = [device for device in devices[start : start + _SLICE] if device in live]
            for device in _write(part, encoded):
                self.leave(device)
                device.leave_live(first)

    def _all_leave(self, offset: int, *, only_until_settled: bool = False) -> None:
        for devices in list(self.live.values()):
            for device in list(devices):
                if device.until_settled or not only_until_settled:
                    self.leave(device)
                    device.leave_live(offset)

    def settle(self) -> None:
        """The session is settled, by its record: those who wait for that and have everything may go."""
        self.settled = True
        if self.loaded:
            self._end()

    def begin(self, epoch: str, *, tail: int, closed: bool, settled: bool) -> None:
        """The log has told where the session ends; what was told meanwhile goes out from there on."""
        if epoch != self.epoch:  # what was told was of the life before, or there was nothing
            self._pending.clear()
            self._closing = False
        self.epoch, self.tail, self.settled, self.loaded = epoch, tail, settled, True
        self._closing |= closed
        self.start()
        self._end()

    def change(self, change: Change) -> None:
        """Take what became of the session."""
        self._closing |= change == "closed"
        self.deleted |= change == "deleted"
        if self.loaded:
            self.pages.forget()
            self._end()

    def _end(self) -> None:
        """Let everybody go who waits for more, if there will be none."""
        at_rest = self._fan_out is None and not self._pending
        if at_rest and self.settled:
            self._all_leave(self.tail, only_until_settled=True)
        self.closed = self._closing and at_rest
        if self.closed or self.deleted:
            self._all_leave(self.tail)
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    def keep_alive(self) -> None:
        """Write each lane's idle bytes to its devices."""
        for lane, devices in self.live.items():
            if lane.idle:
                _write(list(devices), lane.idle)  # one that is behind is busy enough without it


def _write(devices: Sequence[LiveDevice], chunk: bytes) -> list[LiveDevice]:
    """Write a chunk to each device; those that have too much unsent are given back."""
    size = len(chunk)
    behind: list[LiveDevice] = []
    for device in devices:
        try:
            taken = device.sink.put(chunk)
        except OSError:
            taken = 0
        if taken != size and not _keep(device, chunk, taken):
            behind.append(device)
    return behind


def _keep(device: LiveDevice, chunk: bytes, taken: int) -> bool:
    try:
        return device.sink.keep(chunk, taken)
    except Exception:  # noqa: BLE001 - whatever one connection raises, the others get their bytes
        _log.exception("a connection failed; its device reads from the log, or has gone")
        return False


def within(most_bytes: int, events: Sequence[Event]) -> Iterator[list[Event]]:
    """Cut events into stretches of at most so many bytes, or of one event that is larger."""
    chunk: list[Event] = []
    size = 0
    for event in events:
        if chunk and size + len(event.body) > most_bytes:
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += len(event.body)
    if chunk:
        yield chunk
