"""A channel: one session's live devices, to which durable events are written, encoded once.

A channel has its session's `tail`: every event below it has been written to all live devices. A device joins only at the
tail, without an `await` between the check and the join. This is the whole hand-over from history to live: the device has read
the events below the tail from the log, and the channel will write the events above it. All methods run in the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog

from wakeline.errors import UnavailableError
from wakeline.events import RUN_STARTED, SESSION_SETTLED, Event
from wakeline.gateway.delivery.pages import Pages
from wakeline.gateway.delivery.topics import Topics
from wakeline.gateway.delivery.written import Written
from wakeline.gateway.log import Change
from wakeline.gateway.runtime import Slice

CHUNK_BYTES: Final = 64 * 1024
"""Bytes of events that are written to a device at once; with its buffer limit, this bounds its memory."""

_HEARD_WITHIN: Final = 10.0
"""Seconds within which a gateway hears of another one's commits; where notifications are lost, it polls more often."""

_SLICE: Final = 256
"""Devices that are written to before other tasks run: a fan-out must not delay acknowledgements."""

_log = structlog.get_logger(__name__)

Encode: TypeAlias = Callable[[str, str, Sequence[Event]], bytes]
"""Returns the wire form of events, given the session, its epoch and the events."""


class Lane(msgspec.Struct, frozen=True):
    """The properties that devices must have in common to receive the same bytes.

    Attributes:
        encode: Returns the wire form of events.
        idle: Bytes that keep an idle connection alive; empty if the transport needs none.
        topics: Only events of these topics are written; None for all. Default: None.
    """

    encode: Encode
    idle: bytes
    topics: Topics | None = None


class Sink(Protocol):
    """A live device's connection, as the hub writes to it.

    `put` and `keep` are two calls because `put` is the hot path of a fan-out: `keep` follows only if bytes are left.
    """

    @property
    def put(self) -> Callable[[bytes], int]:
        """Pass bytes to the kernel; return how many it accepted, or raise `OSError` if none."""
        ...

    def keep(self, chunk: bytes, taken: int) -> bool:
        """Buffer the bytes after the first `taken`; return False if too many are unsent already."""
        ...


class LiveDevice(Protocol):
    """A device, as a channel sees it."""

    lane: Lane
    until_settled: bool

    @property
    def sink(self) -> Sink:
        """The device's connection."""
        ...

    def leave_live(self, offset: int) -> None:
        """Return to catching up: everything below `offset` has been written."""
        ...


class _Halfway:
    """An interrupted fan-out: the chunk's first offset, and the devices that still need it."""

    def __init__(self, first: int, parts: list[list[LiveDevice]]) -> None:
        self.first = first
        self._parts = parts

    @cached_property
    def waiting(self) -> frozenset[LiveDevice]:
        """The devices that do not have the chunk yet; computed on demand, which is rare."""
        return frozenset[LiveDevice]().union(*self._parts)


class Channel:
    """One session's live devices, and the events that are being written to them.

    Args:
        session: The session's name.
        soon: Arranges a call of the channel's `step`.
        written: Counts what is written.

    Attributes:
        readers: How many devices the channel serves, live or catching up.
        pages: The pages that devices read to catch up; set when the session is loaded.
        closed: Whether the session is closed and the tail is its end.
        deleted: Whether this life of the session is deleted; another one may have its name.
    """

    pages: Pages

    def __init__(self, session: str, soon: Callable[[Channel], None], written: Written) -> None:
        self.session = session
        self.readers = 0
        self._soon = soon
        self._written = written
        self._count = 0  # events that this fan-out has written
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
        self._writing = False  # `step` will be called
        self._fan_out: Iterator[None] | None = None
        self._halfway: _Halfway | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def devices(self) -> int:
        """The number of live devices."""
        return sum(map(len, self.live.values()))

    def join(self, device: LiveDevice, offset: int) -> None:
        """Make a device live.

        Args:
            device: The device.
            offset: The tail: the device has everything below it, and has not awaited since it compared its offset with the
                tail.
        """
        assert offset == self.tail, f"expected to join at the tail {self.tail}, got {offset}"
        self.live.setdefault(device.lane, {})[device] = None

    def leave(self, device: LiveDevice) -> None:
        """Remove a device; no effect if it is not live."""
        devices = self.live.get(device.lane)
        if devices is not None:
            devices.pop(device, None)
            if not devices:
                del self.live[device.lane]

    def given(self, device: LiveDevice) -> int | None:
        """Return the offset below which a live device has every event; None if it is not live."""
        if device not in self.live.get(device.lane, ()):
            return None
        halfway = self._halfway
        return halfway.first if halfway is not None and device in halfway.waiting else self.tail

    async def wait_beyond(self, offset: int, seconds: float) -> None:
        """Wait until there is an event at `offset` or there can be none, for at most `seconds`."""
        if self.tail > offset or self.deleted:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=seconds)
        finally:
            self._waiting.discard(future)

    async def reach(self, offset: int) -> None:
        """Wait until the tail is at `offset`, or this life of the session is deleted."""
        while self.tail < offset and not self.deleted:
            await self.wait_beyond(offset - 1, 1.0)

    async def hear(self, offset: int, *, closed: bool = False) -> None:
        """Wait, as `reach` does, for events that the log has: another gateway wrote them.

        A device that reconnects through a load balancer may be faster than the notification between the gateways.

        Args:
            offset: The tail that the log has.
            closed: Whether the log has the session's end, which is waited for, too. Default: False.

        Raises:
            UnavailableError: The channel hears nothing of them.
        """
        if self.tail >= offset and self.closed >= closed:
            return
        try:
            async with asyncio.timeout(_HEARD_WITHIN):
                await self.reach(offset)
                while self.closed < closed and not self.deleted:
                    await self.wait_beyond(self.tail, 1.0)
        except TimeoutError:
            raise UnavailableError(
                f"expected news of session {self.session[:64]!r} from the store, got none after offset {self.tail} for a while",
                hint="Repeat the request: this gateway has not heard yet of what another one has written.",
            ) from None

    def publish(self, events: Sequence[Event]) -> None:
        """Add events that have become durable; they are written in the next turn of the event loop."""
        self._pending += events
        if self.loaded:
            self.start()

    def start(self) -> None:
        """Begin to write the pending events, in steps of the event loop."""
        if self._pending and not self._writing:
            self._writing = True
            self._soon(self)

    def step(self) -> None:
        """Write pending events until other tasks must run, and continue in another step."""
        if self._fan_out is None:
            self._fan_out = self._write_pending()
        for _ in self._fan_out:
            self._soon(self)
            return
        self._fan_out = None
        self._writing = False
        self.start()  # events that arrived during the fan-out are written together, next
        self._end()

    def _write_pending(self) -> Iterator[None]:
        """Write everything pending; yield after each slice of devices, and after some milliseconds."""
        events, self._pending = self._pending, []
        if events and events[0].offset < self.tail:
            events = [event for event in events if event.offset >= self.tail]
        work, paused = Slice(), False
        for chunk in within(CHUNK_BYTES, events):
            first = chunk[0].offset
            if first > self.tail:  # the channel was not notified of the events in between: only the log has them
                self._all_leave(self.tail)
            self.tail = chunk[-1].offset + 1
            if self._waiting:
                self.pages.hold(chunk)
                self._wake()
            # Devices that join from here on join at the new tail, and read this chunk from the log.
            lanes = [(lane, list(devices)) for lane, devices in self.live.items()]
            for event in chunk:
                if event.topic in (RUN_STARTED, SESSION_SETTLED):
                    self.settled = event.topic == SESSION_SETTLED
            for number, (lane, devices) in enumerate(lanes):
                if work.over():  # between lanes, too: there may be many with few devices each
                    self._halfway = _Halfway(first, [waiting for _, waiting in lanes[number:]])
                    yield
                    self._halfway, work, paused = None, Slice(), True
                if paused:  # other tasks have run since the chunk was begun: devices may have left
                    live = self.live.get(lane, {})
                    devices = [device for device in devices if device in live]
                for done in self._write_lane(lane, devices, chunk, first):
                    later = [waiting for _, waiting in lanes[number + 1 :]]
                    self._halfway = _Halfway(first, [devices[done:], *later])
                    yield
                    self._halfway, work, paused = None, Slice(), True
            if self.settled:
                self._all_leave(self.tail, only_until_settled=True)
            if work.over():
                yield
                work = Slice()
        if self._count:
            self._written.add(self._count, events[0].body)
            self._count = 0

    def _write_lane(self, lane: Lane, devices: list[LiveDevice], chunk: list[Event], first: int) -> Iterator[int]:
        """Write a chunk to a lane's devices; yield how many have it, after each slice of them."""
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
            part = devices[start : start + _SLICE]
            if start:
                yield start
                live = self.live.get(lane, {})
                part = [device for device in part if device in live]
            behind = _write(part, encoded)
            self._count += len(matching) * (len(part) - len(behind))
            for device in behind:
                self.leave(device)
                device.leave_live(first)

    def _all_leave(self, offset: int, *, only_until_settled: bool = False) -> None:
        """Return all live devices to catching up, or only those that end at a settled session."""
        for devices in list(self.live.values()):
            for device in list(devices):
                if device.until_settled or not only_until_settled:
                    self.leave(device)
                    device.leave_live(offset)

    def settle(self) -> None:
        """Note that the record of runs is settled, and release the devices that wait for this."""
        self.settled = True
        if self.loaded:
            self._end()

    def begin(self, epoch: str, *, tail: int, closed: bool, settled: bool) -> None:
        """Start the channel at the session's end, as read from the log, and write the events since.

        Args:
            epoch: The session's life.
            tail: The session's end.
            closed: Whether the session is closed.
            settled: Whether it is settled.
        """
        if epoch != self.epoch:  # the pending events are of an earlier life, or there are none
            self._pending.clear()
            self._closing = False
        self.epoch, self.tail, self.settled, self.loaded = epoch, tail, settled, True
        self._closing |= closed
        self.start()
        self._end()

    def change(self, change: Change) -> None:
        """Apply a change of the session that has become durable."""
        self._closing |= change == "closed"
        self.deleted |= change == "deleted"
        if self.loaded:
            self.pages.forget()
            self._end()

    def _end(self) -> None:
        """Release the devices and waiting tasks if no more events will come."""
        at_rest = not self._writing and not self._pending
        if at_rest and self.settled:
            self._all_leave(self.tail, only_until_settled=True)
        self.closed = self._closing and at_rest
        if self.closed or self.deleted:
            self._all_leave(self.tail)
            self._wake()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def keep_alive(self) -> None:
        """Write each lane's idle bytes to its devices."""
        for lane, devices in self.live.items():
            if lane.idle:
                _write(list(devices), lane.idle)  # a device that is behind receives other bytes and needs none of these


def _write(devices: Sequence[LiveDevice], chunk: bytes) -> list[LiveDevice]:
    """Write a chunk to each device; return those that have too many bytes unsent."""
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
    except Exception:  # noqa: BLE001 - an error of one connection must not keep the bytes from the others
        _log.exception("a connection failed; its device returns to reading the log, or has left")
        return False


def within(most_bytes: int, events: Sequence[Event]) -> Iterator[list[Event]]:
    """Yield the events in contiguous chunks of at most `most_bytes`, or of one larger event."""
    chunk: list[Event] = []
    size = 0
    for event in events:
        if chunk and (size + len(event.body) > most_bytes or event.offset != chunk[-1].offset + 1):
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += len(event.body)
    if chunk:
        yield chunk
