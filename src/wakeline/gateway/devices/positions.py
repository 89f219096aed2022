"""Positions: how far each device of a session has read, kept on the server.

`seen` is the offset that a device acknowledged. The gateway answers an acknowledgement when it is durable; one write
stores all acknowledgements that arrived during the write before. `delivered` is the offset up to which events were
written to the device's connections. Writing events does not update it: every few seconds the gateway asks each
connection for its offset. Neither position costs a commit for each event or each device.

`records.py` defines the stored form, `parts.py` writes it. Two gateways on one engine write the same records; the
larger position counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Final, Self
from weakref import WeakValueDictionary

import msgspec
import structlog

from wakeline.background import cancel_all
from wakeline.errors import UnavailableError
from wakeline.events import Cursor
from wakeline.gateway.devices.parts import Connection, DeviceLimit, OffsetOf, Part, Parts
from wakeline.gateway.devices.presence import Presence
from wakeline.gateway.devices.records import PARTS, Entry, Key, erase, moment, now, part_of, stored
from wakeline.gateway.log import Engine, SessionState
from wakeline.gateway.runtime import Grouped, log_failure, supervised

SAVE_SECONDS: Final = 2.0
"""Seconds between two saves of delivered offsets."""

_GROUP: Final = 64
_PAUSE: Final = 0.1  # with `_GROUP`: at most some 600 records a second, whatever the number of sessions
_ASKED: Final = 1_000  # devices whose offsets are read before other tasks of the event loop run
_LAST_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


class DevicePosition(msgspec.Struct, frozen=True):
    """A device's positions in a session, as the API returns them (PROTOCOL.md §7)."""

    device: str
    user: str
    delivered: str | None
    seen: str | None
    lag: int
    connected: bool
    transports: list[str]
    last_active: str


class Furthest(msgspec.Struct, frozen=True):
    """The furthest positions of a user's devices; each is the offset after the last event."""

    delivered: int
    seen: int


class Positions:
    """The positions of all devices; inside the block, delivered offsets are saved regularly.

    Args:
        engine: Stores the positions.
        presence: Notified of every connection.
        user_devices: The greatest number of devices remembered for one user in a session, shared out among the
            parts; 0 for no limit.
        counted: Called after each write with the number of devices added and the number forgotten.
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
        self._states: WeakValueDictionary[str, Grouped[SessionState]] = WeakValueDictionary()
        self._saving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._saving = supervised("positions", self._save_for_ever)
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._saving)
        with suppress(TimeoutError):  # delivered offsets may lag: after a crash they lag as much
            async with asyncio.timeout(_LAST_SECONDS):
                await self._try_to_save()

    def connected(
        self, session: str, epoch: str, user: str, device: str, offset_of: OffsetOf, transport: str = ""
    ) -> AbstractContextManager[None]:
        """Register a connection of a device inside the block. Entering and leaving do not await.

        Args:
            session: The session's name.
            epoch: The session's epoch.
            user: The user whose device it is.
            device: The device's id.
            offset_of: Returns the first offset that has not been written to the connection. It is called every few
                seconds and when the block ends.
            transport: The name of the connection's transport.
        """
        return _Connected(self._parts, self._presence, session, epoch, (user, device), offset_of, transport)

    def delivered(self, session: str, epoch: str, user: str, device: str, offset: int) -> None:
        """Record that a device without a registered connection received the events below `offset`."""
        with self._parts.using(session, epoch, part_of((user, device))) as part:
            part.note(Entry(user, device, delivered=offset, seen=None, active=now()))

    def written(self, session: str, epoch: str, user: str, device: str) -> list[tuple[str, int]]:
        """Return each connection's transport and the first offset that has not been written to it."""
        key = (user, device)
        part = self._parts.get(session, epoch, part_of(key))
        connections = part.connections.get(key, ()) if part is not None else ()
        return [(connection.transport, connection.offset_of()) for connection in connections]

    async def acknowledge(
        self, session: str, user: str, device: str, cursor: str, *, everywhere: bool = False
    ) -> DevicePosition:
        """Record that a device has seen everything before a cursor; return when that is durable.

        Args:
            session: The session's name.
            user: The user whose device it is.
            device: The device's id. An unknown device becomes known.
            cursor: The cursor as received. A cursor older than the stored position changes nothing.
            everywhere: Record it for the user's other known devices, too.

        Returns:
            The device's positions after the change.

        Raises:
            CursorInvalidError: The cursor is malformed.
            SessionNotFoundError: There is no such session.
            EpochChangedError: The cursor belongs to an earlier epoch of the session.
            CursorAheadError: The cursor is past the session's end.
            UnavailableError: It could not be stored, or the outcome is unknown: acknowledge again.
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
            connected = await self._presence.is_there(session, user, device)
            transports = self._presence.transports(session, user, device)
            return _described(state, part.latest(key) or mine, connected=connected, transports=transports)

    async def seen(self, session: str, epoch: str, user: str, device: str) -> int | None:
        """Return the offset after the last event that a device acknowledged in this epoch, or None."""
        entry = (await stored(self._engine, session, epoch, part_of((user, device)))).get((user, device))
        return entry.seen if entry else None

    async def devices(self, session: str, user: str | None = None) -> list[DevicePosition]:
        """Return the devices of a user, or of all users, ordered by user and id.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        state = await self._state(session)
        entries = await self._entries(session, state.epoch)
        present = await self._presence.everywhere(session)
        # Those that have connected to another gateway, which has not saved their positions yet.
        for key in present.difference(entries, self._presence.present(session)):
            entries[key] = Entry(*key, delivered=None, seen=None, active=now())
        return [
            _described(
                state, entries[key], connected=key in present, transports=self._presence.transports(session, *key)
            )
            for key in sorted(entries)
            if user in (None, key[0])
        ]

    async def furthest(self, session: str, epoch: str) -> dict[str, Furthest]:
        """Return the furthest positions of each user who has a device in the session, by user."""
        found: dict[str, Furthest] = {}
        for entry in (await self._entries(session, epoch)).values():
            known = found.get(entry.user, Furthest(0, 0))
            found[entry.user] = Furthest(max(known.delivered, entry.delivered or 0), max(known.seen, entry.seen or 0))
        return found

    async def forget(self, session: str, user: str, device: str) -> None:
        """Forget a device.

        A connected device becomes known again at the next save, without a seen position.

        Raises:
            SessionNotFoundError: There is no such session.
            UnavailableError: The removal could not be stored, or its outcome is unknown.
        """
        state = await self._state(session)
        key = (user, device)
        with self._parts.using(session, state.epoch, part_of(key)) as part:
            part.left.pop(key, None)
            await part.change(lambda entries: entries.pop(key, None), fresh=True)

    async def forget_session(self, session: str) -> None:
        """Erase the positions of the session's earlier epochs.

        Call it after the session was deleted.

        Raises:
            UnavailableError: Some positions may remain; call it again.
        """
        state = await self._engine.state(session)
        epoch = state.epoch if state else None
        for part in self._parts:
            if part.session == session and part.epoch != epoch:
                with self._parts.using(session, part.epoch, part.number) as ending:
                    await ending.end()
        await asyncio.gather(*(erase(self._engine, session, number, but=epoch) for number in range(PARTS)))

    async def _entries(self, session: str, epoch: str) -> dict[Key, Entry]:
        """Return the entries of all devices, with positions that are not stored yet."""
        read = [stored(self._engine, session, epoch, number) for number in range(PARTS)]
        entries: dict[Key, Entry] = {}
        for number, part in enumerate(await asyncio.gather(*read)):
            entries |= part
            held = self._parts.get(session, epoch, number)
            for entry in held.unsaved(every=True) if held else ():
                entries[entry.key] = entry.merged(entries.get(entry.key))
        return entries

    async def save(self, *, pause: float = 0.0) -> None:
        """Store the delivered offsets that are not stored, with a pause after each group of records."""
        group: list[tuple[Part, list[Entry]]] = []
        asked = 0
        for part in self._parts:
            unsaved = part.unsaved()
            if unsaved:
                group.append((part, unsaved))
            asked += 1 + len(part.connections)
            if len(group) == _GROUP or asked > _ASKED:
                await self._save(group)
                await asyncio.sleep(pause if group else 0)
                group, asked = [], 0
        await self._save(group)

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            await self._try_to_save(pause=_PAUSE)

    async def _try_to_save(self, *, pause: float = 0.0) -> None:
        try:
            await self.save(pause=pause)
        except UnavailableError as error:
            log_failure(_log, "delivered positions could not be saved", error)
        except Exception:  # noqa: BLE001 - one record's error must not end the task; the next save retries all
            _log.exception("delivered positions could not be saved")

    async def _save(self, group: list[tuple[Part, list[Entry]]]) -> None:
        async def save(part: Part, unsaved: list[Entry]) -> None:
            with self._parts.using(part.session, part.epoch, part.number) as used:
                await used.save(unsaved)

        await asyncio.gather(*(save(part, unsaved) for part, unsaved in group))

    async def _see_everywhere(self, state: SessionState, user: str, offset: int) -> None:
        """Raise `seen` of all the user's known devices, in every part."""

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
        return await states.do(lambda: self._engine.found(session))


def _described(state: SessionState, entry: Entry, *, connected: bool, transports: list[str]) -> DevicePosition:
    return DevicePosition(
        device=entry.device,
        user=entry.user,
        delivered=None if entry.delivered is None else str(Cursor(state.epoch, entry.delivered)),
        seen=None if entry.seen is None else str(Cursor(state.epoch, entry.seen)),
        # The state was read before the entry, which another gateway may have raised beyond it meanwhile.
        lag=max(0, state.next_offset - max(entry.seen or 0, state.first_offset)),
        connected=connected,
        transports=transports,
        last_active=moment(now() if connected else entry.active),
    )


class _Connected:
    """A registered connection. A generator would take three times the memory per connection."""

    __slots__ = ("_connection", "_epoch", "_key", "_part", "_parts", "_presence", "_session")

    def __init__(
        self,
        parts: Parts,
        presence: Presence,
        session: str,
        epoch: str,
        key: Key,
        offset_of: OffsetOf,
        transport: str,
    ) -> None:
        self._parts = parts
        self._presence = presence
        self._session = session
        self._epoch = epoch
        self._key = key
        self._connection = Connection(offset_of, transport)

    def __enter__(self) -> None:
        self._part = self._parts.take(self._session, self._epoch, part_of(self._key))
        self._part.connect(self._key, self._connection)
        self._presence.come(self._session, *self._key, self._connection.transport)

    def __exit__(self, *_: object) -> None:
        self._part.disconnect(self._key, self._connection)
        self._presence.go(self._session, *self._key, self._connection.transport)
        self._parts.give_back(self._part)
