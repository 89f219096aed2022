"""The hub: what was just made durable goes to every device that is live, encoded once.

A channel knows one session's `tail`: every event below it has been written to all live devices. A device joins only at
the tail, without an `await` between looking and joining, and that is the whole hand-over from history to live: what is
below the tail it has read from the log, what is above it will be written to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog

from wakeline.errors import SessionNotFoundError
from wakeline.events import RUN_STARTED, SESSION_SETTLED, Event
from wakeline.gateway.log import Engine
from wakeline.gateway.runs import Runs
from wakeline.gateway.topics import Topics

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
        idle: What keeps an idle connection alive.
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


class Channel:
    """One session's live devices, and the events on their way to them."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.epoch = ""
        self.tail = 0
        self.settled = False
        self.users = 0
        self.loading = asyncio.Lock()
        self.loaded = False
        self.live: dict[Lane, dict[LiveDevice, None]] = {}
        self._pending: list[Event] = []
        self._fan_out: Iterator[None] | None = None
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

    async def wait_beyond(self, offset: int, seconds: float) -> None:
        """Return when there is an event at `offset`, or after `seconds`."""
        if self.tail > offset:
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

    def _write_pending(self) -> Iterator[None]:
        """Write everything pending; yields after each slice of devices."""
        events, self._pending = [e for e in self._pending if e.offset >= self.tail], []
        for chunk in _chunks(events):
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
            for lane, devices in lanes:
                yield from self._write_lane(lane, devices, chunk, first)
            if self.settled:
                self._all_leave(self.tail, only_until_settled=True)

    def _write_lane(self, lane: Lane, devices: list[LiveDevice], chunk: list[Event], first: int) -> Iterator[None]:
        matching = chunk if lane.topics is None else [e for e in chunk if e.topic in lane.topics]
        if not matching:
            return
        encoded = lane.encode(self.session, self.epoch, matching)
        for start in range(0, len(devices), _SLICE):
            part = devices[start : start + _SLICE]
            if start:
                yield
                live = self.live.get(lane, {})
                part = [device for device in part if device in live]
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
        if self._fan_out is None and not self._pending:
            self._all_leave(self.tail, only_until_settled=True)

    def keep_alive(self) -> None:
        """Write each lane's idle bytes to its devices."""
        for lane, devices in self.live.items():
            _write(list(devices), lane.idle)  # one that is behind is busy enough without it


class Hub:
    """The channels of all sessions that somebody watches here."""

    def __init__(self, engine: Engine, runs: Runs) -> None:
        self._engine = engine
        self._runs = runs
        self._channels: dict[str, Channel] = {}
        engine.listen(self._committed)

    def _committed(self, session: str, events: Sequence[Event]) -> None:
        channel = self._channels.get(session)
        if channel is not None:
            channel.publish(events)

    @asynccontextmanager
    async def attach(self, session: str) -> AsyncIterator[Channel]:
        """The session's channel, for as long as the block lasts.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        # The channel listens before the log is asked for its end: what is committed in between is pending, not missed.
        channel = self._channels.setdefault(session, Channel(session))
        channel.users += 1
        try:
            async with channel.loading:
                if not channel.loaded:
                    await self._load(channel)
            yield channel
        finally:
            channel.users -= 1
            if channel.users == 0 and self._channels.get(session) is channel:
                del self._channels[session]

    async def _load(self, channel: Channel) -> None:
        state = await self._engine.state(channel.session)
        if state is None:
            raise SessionNotFoundError(f"there is no session {channel.session!r}")
        last = await self._engine.read(channel.session, max(0, state.next_offset - 1), before=state.next_offset)
        # The log tells first: the record of the runs is written a moment after the events that say the same.
        ends = bool(last.events) and last.events[-1].topic == SESSION_SETTLED
        channel.settled = ends or await self._runs.settled(channel.session)
        channel.epoch, channel.tail, channel.loaded = state.epoch, state.next_offset, True
        channel.start()

    def settle(self, session: str) -> None:
        """A session's record says that it is settled. The log has said so before; but not to who asked in between."""
        channel = self._channels.get(session)
        if channel is not None and channel.loaded:
            channel.settle()

    def keep_alive(self) -> None:
        """Write something to every live device, so that proxies keep the connection and the dead are noticed."""
        for channel in list(self._channels.values()):
            channel.keep_alive()

    def devices(self, session: str | None = None) -> int:
        """How many devices are live, of one session or of all."""
        if session is not None:
            channel = self._channels.get(session)
            return channel.devices if channel else 0
        return sum(channel.devices for channel in self._channels.values())


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


def _chunks(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Cut events into stretches of about `CHUNK_BYTES`."""
    chunk: list[Event] = []
    size = 0
    for event in events:
        if chunk and size + len(event.body) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += len(event.body)
    if chunk:
        yield chunk
