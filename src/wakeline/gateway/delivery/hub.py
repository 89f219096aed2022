"""The hub: the channels of the sessions that are watched at this gateway, each subscribed to its session's commits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from wakeline.errors import SessionNotFoundError
from wakeline.events import SESSION_SETTLED, Event
from wakeline.gateway.delivery.channel import Channel
from wakeline.gateway.delivery.pages import Pages
from wakeline.gateway.log import Change, Engine


class Hub:
    """The channels of all sessions that are watched here.

    Args:
        engine: The log.
        settled: Return whether no run of a session is open, and it has had one.
    """

    def __init__(self, engine: Engine, settled: Callable[[str], Awaitable[bool]]) -> None:
        self._engine = engine
        self._settled = settled
        self._channels: dict[str, Channel] = {}
        self._unsubscribe: dict[str, Callable[[], None]] = {}
        self._listeners: list[Callable[[], None]] = []

    def _committed(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        channel = self._channels[session]
        if (
            not channel.loaded
        ):  # the latest life that the log reports is the one that loading finds, or is followed by it
            channel.epoch = epoch
        if channel.epoch != epoch:
            return
        if events:
            channel.publish(events)
        for change in changes:
            if change == "deleted":
                self._forget(channel)  # a device that comes now gets the life that follows, if one does
            channel.change(change)

    def _forget(self, channel: Channel) -> None:
        self._unsubscribe.pop(channel.session)()
        del self._channels[channel.session]

    def attach(self, session: str) -> Attached:
        """The session's channel, for as long as the block lasts: `async with hub.attach(name) as channel`.

        Raises:
            SessionNotFoundError: There is no such session; when the block is entered.
        """
        return Attached(self, session)

    async def enter(self, session: str) -> Channel:
        """Begin to use the session's channel; see `attach`."""
        while True:
            # The channel listens before the log is asked for its end: what is committed in between is pending, not missed.
            channel = self._channels.get(session)
            if channel is None:
                channel = self._channels[session] = Channel(session)
                self._unsubscribe[session] = self._engine.subscribe(session, self._committed)
            channel.users += 1
            if channel.users == 1:
                self._tell()
            try:
                async with channel.loading:
                    if not channel.loaded:
                        await self._load(channel)
            except BaseException:
                self.leave(channel)
                raise
            if not channel.deleted:  # while it was loaded: the log may have told of the life before, or after
                return channel
            self.leave(channel)

    def leave(self, channel: Channel) -> None:
        """Use it no more."""
        channel.users -= 1
        if channel.users == 0 and self._channels.get(channel.session) is channel:
            self._forget(channel)
            self._tell()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have it called whenever a session is read that nobody has read, or is not read any more: see `watched`."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    async def _load(self, channel: Channel) -> None:
        state = await self._engine.state(channel.session)
        if state is None:
            raise SessionNotFoundError(f"there is no session {channel.session!r}")
        last = await self._engine.read_back(channel.session, state.next_offset, limit=1)
        # The log tells first: the record of the runs is written a moment after the events that say the same.
        ends = bool(last.events) and last.events[-1].topic == SESSION_SETTLED
        settled = ends or await self._settled(channel.session) or channel.settled  # told while the record was read
        channel.pages = Pages(self._engine, channel.session, state.epoch, state.created)
        channel.begin(state.epoch, tail=state.next_offset, closed=state.closed, settled=settled)

    def settle(self, session: str) -> None:
        """A session's record says that it is settled. The log has said so before; but not to who asked in between."""
        channel = self._channels.get(session)
        if channel is not None:
            channel.settle()

    def keep_alive(self) -> None:
        """Write something to every live device, so that proxies keep the connection and the dead are noticed."""
        for channel in list(self._channels.values()):
            channel.keep_alive()

    def watched(self, session: str) -> bool:
        """Whether somebody reads the session here."""
        return session in self._channels

    def sessions(self) -> list[str]:
        """The sessions that somebody reads here."""
        return list(self._channels)

    def devices(self, session: str | None = None) -> int:
        """How many devices are live, of one session or of all."""
        if session is not None:
            channel = self._channels.get(session)
            return channel.devices if channel else 0
        return sum(channel.devices for channel in self._channels.values())


class Attached:
    """One use of a channel. A class, not a generator: every idle device holds one, and a generator is ten times its size."""

    __slots__ = ("_channel", "_hub", "_session")

    def __init__(self, hub: Hub, session: str) -> None:
        self._hub = hub
        self._session = session

    async def __aenter__(self) -> Channel:
        """Begin to use it."""
        self._channel = await self._hub.enter(self._session)
        return self._channel

    async def __aexit__(self, *_: object) -> None:
        """Use it no more."""
        self._hub.leave(self._channel)
