"""Moves a store: copies its sessions and records to another engine, and verifies each copy.

A session is copied into a draft, read back and compared, and only then becomes visible, with its own epoch: cursors, positions
and publishers' sequences stay valid. So a move that was cut short has moved whole sessions, and the next one continues after
them. No gateway may run on either store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from wakeline.errors import EngineRefusedError, SessionExistsError, StorageFailedError
from wakeline.events import Event, NewEvent
from wakeline.gateway.log import Append, Engine, NewSession, Portable, Restorable, SessionState, StoredPublisher

_SESSIONS: Final = 100
_DRAFT_SECONDS: Final = 86_400.0
_OF_GATEWAYS: Final = ("leases/", "wakeups/", "presence/")
"""Records of gateways that run; they mean nothing in another store."""
_LEASES: Final = "leases/gateway/"


class Moved(msgspec.Struct):
    """Counts of what was copied and verified."""

    sessions: int = 0
    events: int = 0
    publishers: int = 0
    records: int = 0


class _Timed(msgspec.Struct):
    time: str


_time = msgspec.json.Decoder(_Timed)


async def check_unused(engine: Engine, seconds: float) -> None:
    """Check that no gateway runs on a shared store.

    Args:
        engine: The store.
        seconds: Within which a gateway that runs renews its lease.

    Raises:
        EngineRefusedError: One does, or the store was restored and no gateway has started since.
    """
    if isinstance(engine, Restorable) and engine.restored:
        raise EngineRefusedError(
            "expected a store that a gateway has used since its restore",
            hint="Start a gateway on it, and stop it again.",
        )
    leases = await engine.records(_LEASES)
    if leases:
        await asyncio.sleep(seconds)
        if any(lease not in leases for lease in await engine.records(_LEASES)):
            raise EngineRefusedError(
                "expected a store without gateways, one renews its lease", hint="Stop all gateways, then try again."
            )


class Move:
    """A move from one store to another.

    Args:
        source: The store that is read; it stays unchanged.
        target: The store that is written.
        progress: Called after each session.

    Attributes:
        moved: What was moved and verified.
    """

    def __init__(self, source: Engine, target: Engine, progress: Callable[[Moved], None]) -> None:
        assert isinstance(source, Portable)
        assert isinstance(target, Portable)
        self._source, self._target = source, target
        self._from: Portable = source
        self._to: Portable = target
        self._progress = progress
        self.moved = Moved()

    async def run(self) -> Moved:
        """Move everything that the target does not have yet.

        Raises:
            SessionExistsError: The target has another session of a name.
            StorageFailedError: A store failed, or a copy differs.
        """
        after = ""
        while states := await self._source.sessions(after=after, limit=_SESSIONS):
            for state in states:
                await self._session(state)
                self._progress(self.moved)
            after = states[-1].session
        await self._records()
        return self.moved

    async def _session(self, state: SessionState) -> None:
        name = state.session
        there = await self._target.state(name)
        if there is None:
            await self._copy(state)
        elif there.epoch == state.epoch:
            await self._verify(state, state.epoch)  # an earlier move has copied it
        else:
            raise SessionExistsError(
                f"expected no session {name!r} in the target, or a copy, it has another one",
                hint="Move into an empty store, or delete that session.",
            )
        self.moved.sessions += 1

    async def _copy(self, state: SessionState) -> None:
        name = state.session
        await self._target.delete_session(name, draft=True)  # of a move that was cut short
        until = time.time() + _DRAFT_SECONDS
        new = NewSession(name, config=state.config, first_offset=state.first_offset, deadline=until, draft=True)
        draft, _ = await self._target.create_session(new)
        offset = state.first_offset
        while offset < state.next_offset:
            page = await self._source.read(name, offset, before=state.next_offset, epoch=state.epoch)
            events = tuple(NewEvent(each.topic, each.body, _time.decode(each.json()).time) for each in page.events)
            await self._target.append(Append(name, events, epoch=draft.epoch))
            offset = page.next_offset
        after = ""
        while some := await self._from.publishers(name, epoch=state.epoch, after=after):
            await self._to.add_publishers(name, some, epoch=draft.epoch)
            after = some[-1].name
        await self._verify(state, draft.epoch)
        order = await self._from.order(name, epoch=state.epoch)
        await self._to.adopt(name, state, order, epoch=draft.epoch)

    async def _verify(self, state: SessionState, epoch: str) -> None:
        """Compare a copy with its session, byte for byte."""
        name = state.session
        copies = _events(self._target, state, epoch)
        async for event in _events(self._source, state, state.epoch):
            if await anext(copies, None) != event:
                raise StorageFailedError(f"expected event {event.offset} of {name!r} in the target, it differs")
            self.moved.events += 1
        if await anext(copies, None) is not None:
            raise StorageFailedError(f"expected {state.next_offset} events of {name!r} in the target, it has more")
        publishers = _publishers(self._to, name, epoch)
        async for publisher in _publishers(self._from, name, state.epoch):
            if await anext(publishers, None) != publisher:
                raise StorageFailedError(f"expected publisher {publisher.name!r} of {name!r} in the target, it differs")
            self.moved.publishers += 1

    async def _records(self) -> None:
        key = ""
        while some := await self._source.records_after(key):
            key = some[-1].key
            wanted = {record.key: record.value for record in some if not record.key.startswith(_OF_GATEWAYS)}
            there = await self._target.get_records(list(wanted))
            for name, value in wanted.items():
                before = there.get(name)
                if before is None or before.value != value:
                    await self._target.put_record(name, value, revision=before.revision if before else 0)
            there = await self._target.get_records(list(wanted))
            if {name: record.value for name, record in there.items()} != wanted:
                raise StorageFailedError("expected the records in the target, one differs")
            self.moved.records += len(wanted)


async def _events(engine: Engine, state: SessionState, epoch: str) -> AsyncIterator[Event]:
    offset = state.first_offset
    while True:
        page = await engine.read(state.session, offset, before=1 << 62, epoch=epoch)
        for event in page.events:
            yield event
        if page.next_offset == offset:
            return
        offset = page.next_offset


async def _publishers(store: Portable, session: str, epoch: str) -> AsyncIterator[StoredPublisher]:
    after = ""
    while some := await store.publishers(session, epoch=epoch, after=after):
        for publisher in some:
            yield publisher
        after = some[-1].name
