"""The hub: the channels of the sessions that are watched at this gateway."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog

from wakeline.events import SESSION_SETTLED, Cursor, Event
from wakeline.gateway.delivery.channel import Channel
from wakeline.gateway.delivery.pages import Pages
from wakeline.gateway.delivery.written import Written
from wakeline.gateway.log import Change, Engine
from wakeline.gateway.runtime import Slice

_log = structlog.get_logger(__name__)


class Hub:
    """The channels of all watched sessions, each subscribed to its session's commits.

    Args:
        engine: The log.
        settled: Returns whether a session has had a run and none is open.

    Attributes:
        written: Counts what is written to live devices.
    """

    def __init__(self, engine: Engine, settled: Callable[[str], Awaitable[bool]]) -> None:
        self.written = Written()
        self._engine = engine
        self._settled = settled
        self._channels: dict[str, Channel] = {}
        self._unsubscribe: dict[str, Callable[[], None]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._ready: deque[Channel] = deque()  # channels with something to write
        self._passing = False  # `_pass` will be called

    def _soon(self, channel: Channel) -> None:
        self._ready.append(channel)
        if not self._passing:
            self._passing = True
            # Not in the next turn but the one after: publishers are answered in the next one.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._pass)

    def _pass(self) -> None:
        """Let each channel write one step, for one slice of the event loop's time."""
        work = Slice()
        for _ in range(len(self._ready)):  # those that come to it meanwhile have their step in the next turn
            channel = self._ready.popleft()
            try:
                channel.step()
            except Exception:  # noqa: BLE001 - a defect in one session must not silence the others
                _log.exception("events could not be written", session=channel.session)
            if work.over():
                break
        self._passing = bool(self._ready)
        if self._passing:
            asyncio.get_running_loop().call_soon(self._pass)
        self.written.report()  # last: a defect in a metric must not silence the sessions

    def _committed(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        channel = self._channels[session]
        if not channel.loaded:
            # Until the channel is loaded, follow the latest life that the log reports: loading finds this one or a later one.
            channel.epoch = epoch
        if channel.epoch != epoch:
            return
        if events:
            channel.publish(events)
        for change in changes:
            if change == "deleted":
                self._forget(channel)  # a device that arrives from now on is served the next life, if there is one
            channel.change(change)

    def _forget(self, channel: Channel) -> None:
        self._unsubscribe.pop(channel.session)()
        del self._channels[channel.session]

    def attach(self, session: str, start: str = "") -> Attached:
        """Return a context with the session's channel: `async with hub.attach(name) as channel`.

        Args:
            session: The session's name.
            start: Where the reader begins. If it is a cursor that the log knows, the channel has the events before it.
                Default: anywhere.

        Raises:
            SessionNotFoundError: There is no such session; raised when the block is entered, as the next one.
            UnavailableError: The log has the events before the cursor, and this gateway has not heard of them.
        """
        return Attached(self, session, start)

    async def enter(self, session: str, start: str = "") -> Channel:
        """Return the session's channel, loaded, and count one more user; see `attach`."""
        while True:
            # Subscribe before the session's end is read: an event that is committed in between is pending, not missed.
            channel = self._channels.get(session)
            if channel is None:
                channel = self._channels[session] = Channel(session, self._soon, self.written)
                self._unsubscribe[session] = self._engine.subscribe(session, self._committed)
            channel.users += 1
            if channel.users == 1:
                self._notify()
            try:
                async with channel.loading:
                    if not channel.loaded:
                        await self._load(channel)
                if Cursor.is_one(start):
                    await self._hear(channel, Cursor.parse(start))
            except BaseException:
                self.leave(channel)
                raise
            if not channel.deleted:  # a deletion while it was loaded may be of this life, or of the one before
                return channel
            self.leave(channel)

    async def _hear(self, channel: Channel, cursor: Cursor) -> None:
        """Wait for the events before a cursor, or for the end of this life before the cursor's."""
        if cursor.epoch == channel.epoch and cursor.offset <= channel.tail:
            return
        state = await self._engine.state(channel.session)
        if state is not None and cursor.epoch == state.epoch and cursor.offset <= state.next_offset:
            await channel.hear(cursor.offset if cursor.epoch == channel.epoch else sys.maxsize)

    def leave(self, channel: Channel) -> None:
        """Count one user less; the last one removes the channel."""
        channel.users -= 1
        if channel.users == 0 and self._channels.get(channel.session) is channel:
            self._forget(channel)
            self._notify()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a session gets its first user or loses its last one."""
        self._listeners.append(listener)

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    async def _load(self, channel: Channel) -> None:
        state = await self._engine.found(channel.session)
        last = await self._engine.read_back(channel.session, state.next_offset, limit=1)
        # Check the log first: the record of the runs is written a moment after the events that report the same.
        ends = bool(last.events) and last.events[-1].topic == SESSION_SETTLED
        settled = ends or await self._settled(channel.session) or channel.settled  # reported while the record was read
        channel.pages = Pages(self._engine, channel.session, state.epoch, state.created)
        channel.begin(state.epoch, tail=state.next_offset, closed=state.closed, settled=settled)

    def settle(self, session: str) -> None:
        """Note that a session's record of runs is settled, for devices that wait for that.

        The log has reported it before; but a channel that was loaded in between has read the older record.
        """
        channel = self._channels.get(session)
        if channel is not None:
            channel.settle()

    def keep_alive(self) -> None:
        """Write idle bytes to live devices: proxies keep the connections, and lost ones fail."""
        for channel in list(self._channels.values()):
            channel.keep_alive()

    def watched(self, session: str) -> bool:
        """Return whether the session is read at this gateway."""
        return session in self._channels

    def sessions(self) -> list[str]:
        """Return the names of the sessions that are read at this gateway."""
        return list(self._channels)

    def devices(self, session: str | None = None) -> int:
        """Return the number of live devices of one session, or of all if `session` is None."""
        if session is not None:
            channel = self._channels.get(session)
            return channel.devices if channel else 0
        return sum(channel.devices for channel in self._channels.values())

    def catching_up(self) -> int:
        """Return the number of devices that read the log, and are not live."""
        return sum(channel.readers - channel.devices for channel in self._channels.values())


class Attached:
    """One use of a channel, as a context.

    A class, not a generator: every idle device holds one, and a generator is ten times its size.
    """

    __slots__ = ("_channel", "_hub", "_session", "_start")

    def __init__(self, hub: Hub, session: str, start: str) -> None:
        self._hub = hub
        self._session = session
        self._start = start

    async def __aenter__(self) -> Channel:
        """Return the channel, loaded."""
        self._channel = await self._hub.enter(self._session, self._start)
        return self._channel

    async def __aexit__(self, *_: object) -> None:
        """End this use of the channel."""
        self._hub.leave(self._channel)
