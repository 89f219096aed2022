"""Positions: how far each device of a session has come, kept on the server.

`seen` is what a device acknowledged. It is answered when it is durable, and all that come during one write go into the
next. `delivered` is what was written to its connections. Nobody counts that while events go out: every few seconds, whoever
is connected is asked. So neither costs a commit for each event, nor one for each device.

`position_records` tells how they are stored, `position_parts` how they are written. Two gateways on one engine write the same
records, each the larger position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Final, Self
from weakref import WeakValueDictionary

import msgspec
import structlog

from wakeline.errors import SessionNotFoundError, UnavailableError
from wakeline.events import Cursor
from wakeline.gateway.devices.parts import DeviceLimit, OffsetOf, Part, Parts
from wakeline.gateway.devices.presence import Presence
from wakeline.gateway.devices.records import PARTS, Entry, Key, erase, moment, now, part_of, stored
from wakeline.gateway.log import Engine, SessionState
from wakeline.gateway.runtime import Grouped, supervised

SAVE_SECONDS: Final = 2.0
"""Between two looks at what was delivered."""

_GROUP: Final = 64
_PAUSE: Final = 0.1  # with `_GROUP`: at most some 600 records a second, whatever the number of sessions
_LOOKED: Final = 1_000  # devices asked before the loop gets a turn
_LAST_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


class DevicePosition(msgspec.Struct, frozen=True):
    """A device's positions in a session, as they are answered (PROTOCOL.md §7)."""

    device: str
    user: str
    delivered: str | None
    seen: str | None
    lag: int
    connected: bool
    last_active: str


class Positions:
    """The positions of all sessions' devices. Runs, with what was delivered being saved, while the block lasts.

    Args:
        engine: Where they are stored.
        presence: Told of every device that connects.
        user_devices: The most devices that are remembered of one user in a session, a share of them in each part; 0 for no limit.
        counted: Called with the numbers of devices that a write has added, and has forgotten for the limits.
    """

    def __init__(
        self,
        engine: Engine,
        presence: Presence,
        *,
        user_devices: int = 1_000,
        counted: Callable[[int, int], object] = lambda added, forgotten: None,
    ) -> None:
        self._engine = engine
        self._presence = presence
        self._parts = Parts(engine, DeviceLimit(user_devices, counted))
        self._states: WeakValueDictionary[str, Grouped[SessionState | None]] = WeakValueDictionary()
        self._saving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._saving = supervised("positions", self._save_for_ever)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._saving is not None
        self._saving.cancel()
        with suppress(asyncio.CancelledError):
            await self._saving
        with suppress(TimeoutError):  # it may trail: a crash takes as much
            async with asyncio.timeout(_LAST_SECONDS):
                await self._try_to_save()

    def connected(
        self, session: str, epoch: str, user: str, device: str, offset_of: OffsetOf
    ) -> AbstractContextManager[None]:
        """One of the device's connections is there for as long as the block lasts. Nothing is awaited.

        Args:
            session: The session's name.
            epoch: Its life.
            user: Whose device it is.
            device: The device's id.
            offset_of: Tells the first offset that has not been written to the connection. Asked now and then, and at the end.
        """
        return _Connected(self._parts, self._presence, session, epoch, (user, device), offset_of)

    def delivered(self, session: str, epoch: str, user: str, device: str, offset: int) -> None:
        """Events below `offset` were written to a connection that `connected` does not tell of: a page was answered."""
        with self._parts.using(session, epoch, part_of((user, device))) as part:
            part.note(Entry(user, device, delivered=offset, seen=None, active=now()))

    async def acknowledge(
        self, session: str, user: str, device: str, cursor: str, *, everywhere: bool = False
    ) -> DevicePosition:
        """A device has seen everything before a cursor; returns when that is durable.

        Args:
            session: The session's name.
            user: Whose device it is.
            device: The device's id. One that was not known becomes so.
            cursor: As it came. An older one than before changes nothing.
            everywhere: The user's other devices have seen it too.

        Raises:
            CursorInvalidError: It is not a cursor.
            SessionNotFoundError: There is no such session.
            EpochChangedError: The cursor is of another life of the session.
            CursorAheadError: The cursor is past the session's end.
            UnavailableError: It could not be stored, or may not have been: acknowledge again.
        """
        parsed = Cursor.parse(cursor)
        state = await self._state(session)
        offset = parsed.offset_in(state.epoch, state.next_offset)
        key = (user, device)
        mine = Entry(user, device, delivered=None, seen=offset, active=now())
        with self._parts.using(session, state.epoch, part_of(key)) as part:
            await part.change(lambda entries: entries.__setitem__(key, mine.merged(entries.get(key))))
            if everywhere:
                await self._see_everywhere(state, user, offset)
            return self._described(state, part.latest(key) or mine)

    async def seen(self, session: str, epoch: str, user: str, device: str) -> int | None:
        """What a device has acknowledged in this life of the session: the offset after it, or None."""
        entry = (await stored(self._engine, session, epoch, part_of((user, device)))).get((user, device))
        return entry.seen if entry else None

    async def devices(self, session: str, user: str | None = None) -> list[DevicePosition]:
        """The devices of a user, or of everybody, by user and id.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        state = await self._state(session)
        read = [stored(self._engine, session, state.epoch, number) for number in range(PARTS)]
        entries: dict[Key, Entry] = {}
        for number, part in enumerate(await asyncio.gather(*read)):
            entries |= part
            held = self._parts.get(session, state.epoch, number)
            for entry in held.unsaved(every=True) if held else ():
                entries[entry.key] = entry.merged(entries.get(entry.key))
        return [self._described(state, entries[key]) for key in sorted(entries) if user in (None, key[0])]

    async def forget(self, session: str, user: str, device: str) -> None:
        """Forget a device. One that is connected becomes known again with what it is given, but has seen nothing.

        Raises:
            SessionNotFoundError: There is no such session.
            UnavailableError: It could not be stored, or may not have been.
        """
        state = await self._state(session)
        key = (user, device)
        with self._parts.using(session, state.epoch, part_of(key)) as part:
            part.left.pop(key, None)
            await part.change(lambda entries: entries.pop(key, None), fresh=True)

    async def forget_session(self, session: str) -> None:
        """Erase the positions of the session's lives that are over. To be called when it has been deleted.

        Raises:
            UnavailableError: Not all of them may be erased; call it again.
        """
        state = await self._engine.state(session)
        epoch = state.epoch if state else None
        for part in self._parts:
            if part.session == session and part.epoch != epoch:
                with self._parts.using(session, part.epoch, part.number) as ending:
                    await ending.end()
        await asyncio.gather(*(erase(self._engine, session, number, but=epoch) for number in range(PARTS)))

    async def save(self, *, pause: float = 0.0) -> None:
        """Store what was delivered since the last time, with a pause after each few records."""
        group: list[tuple[Part, list[Entry]]] = []
        looked = 0
        for part in self._parts:
            unsaved = part.unsaved()
            if unsaved:
                group.append((part, unsaved))
            looked += 1 + len(part.connections)
            if len(group) == _GROUP or looked > _LOOKED:
                await self._save(group)
                await asyncio.sleep(pause if group else 0)
                group, looked = [], 0
        await self._save(group)

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            await self._try_to_save(pause=_PAUSE)

    async def _try_to_save(self, *, pause: float = 0.0) -> None:
        try:
            await self.save(pause=pause)
        except UnavailableError as error:
            _log.warning("what was delivered could not be saved", error=str(error))
        except Exception:  # noqa: BLE001 - whatever one record raises, the others are saved the next time
            _log.exception("what was delivered could not be saved")

    async def _save(self, group: list[tuple[Part, list[Entry]]]) -> None:
        async def save(part: Part, unsaved: list[Entry]) -> None:
            with self._parts.using(part.session, part.epoch, part.number) as used:
                await used.save(unsaved)

        await asyncio.gather(*(save(part, unsaved) for part, unsaved in group))

    async def _see_everywhere(self, state: SessionState, user: str, offset: int) -> None:
        """Raise `seen` of the user's known devices, wherever they are known from."""

        def raise_all(entries: dict[Key, Entry]) -> None:
            for key, entry in entries.items():
                if key[0] == user:
                    entries[key] = msgspec.structs.replace(entry, seen=max(offset, entry.seen or 0))

        async def change(number: int) -> None:
            with self._parts.using(state.session, state.epoch, number) as part:
                await part.save(part.unsaved())
                await part.change(raise_all, fresh=True)

        await asyncio.gather(*map(change, range(PARTS)))

    async def _state(self, session: str) -> SessionState:
        states = self._states.setdefault(session, Grouped())
        state = await states.do(lambda: self._engine.state(session))
        if state is None:
            raise SessionNotFoundError(f"there is no session {session!r}")
        return state

    def _described(self, state: SessionState, entry: Entry) -> DevicePosition:
        connected = self._presence.is_there(state.session, entry.user, entry.device)
        return DevicePosition(
            device=entry.device,
            user=entry.user,
            delivered=None if entry.delivered is None else str(Cursor(state.epoch, entry.delivered)),
            seen=None if entry.seen is None else str(Cursor(state.epoch, entry.seen)),
            lag=state.next_offset - max(entry.seen or 0, state.first_offset),
            connected=connected,
            last_active=moment(now() if connected else entry.active),
        )


class _Connected:
    """One connection of a device. A generator would say the same, in three times the memory for each connection."""

    __slots__ = ("_epoch", "_key", "_offset_of", "_part", "_parts", "_presence", "_session")

    def __init__(
        self, parts: Parts, presence: Presence, session: str, epoch: str, key: Key, offset_of: OffsetOf
    ) -> None:
        self._parts = parts
        self._presence = presence
        self._session = session
        self._epoch = epoch
        self._key = key
        self._offset_of = offset_of

    def __enter__(self) -> None:
        self._part = self._parts.take(self._session, self._epoch, part_of(self._key))
        self._part.connect(self._key, self._offset_of)
        self._presence.come(self._session, *self._key)

    def __exit__(self, *_: object) -> None:
        self._part.disconnect(self._key, self._offset_of)
        self._presence.go(self._session, *self._key)
        self._parts.give_back(self._part)
