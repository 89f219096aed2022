"""A store that several gateways share, as a server that keeps it: slow, with wake-ups that are lost, late, or repeated.

`SharedStore` is the memory engine. Each gateway has an engine of its own on it, a `SharedEngine`, whose calls take time and whose
answers may be lost. A gateway hears of its own commits at once, and of those of others by wake-ups: it then reads what is
new of the sessions that it subscribed to. A poll makes up for wake-ups that were lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from wakeline.errors import StorageFailedError
from wakeline.events import Event
from wakeline.gateway.log import (
    Append,
    Appended,
    Change,
    Commit,
    Engine,
    Listener,
    NewSession,
    Opened,
    Outcome,
    Page,
    Publication,
    Published,
    Record,
    SessionState,
)
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.outcomes import each_appended

T = TypeVar("T")


@dataclass(frozen=True)
class Faults:
    """How bad the way to the store is.

    Attributes:
        latency: The longest time in seconds that a call takes on its way, either way.
        lost_wakeups: The part of the wake-ups that is lost.
        repeated_wakeups: The part of the wake-ups that comes twice.
        lost_answers: The part of the writes that are done and reported as failed.
        poll: Seconds between two polls of the sessions that are subscribed to.
    """

    latency: float = 0.002
    lost_wakeups: float = 0.0
    repeated_wakeups: float = 0.0
    lost_answers: float = 0.0
    poll: float = 0.1


class SharedStore:
    """What the gateways share.

    Attributes:
        memory: Keeps everything.
        caller: The engine whose call is being executed.
    """

    def __init__(self) -> None:
        self.memory = MemoryEngine()
        self.caller: SharedEngine | None = None
        self._engines: list[SharedEngine] = []
        self.memory.feed.listen(self._committed)

    def engine(self, faults: Faults | None = None, seed: int = 0) -> SharedEngine:
        """Return another gateway's way to the store."""
        engine = SharedEngine(self, faults or Faults(), random.Random(seed))
        self._engines.append(engine)
        return engine

    def leave(self, engine: SharedEngine) -> None:
        """Wake a gateway no more that is gone."""
        self._engines.remove(engine)

    def _committed(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            for engine in self._engines:
                if engine is self.caller:
                    engine.report(*commit)
                else:
                    engine.wake(*commit)


@dataclass
class _Known:
    """How much of a session a gateway has heard of."""

    epoch: str
    next_offset: int
    first_offset: int
    closed: bool
    users: int = 0


class SharedEngine(Engine):
    """One gateway's way to a shared store.

    Attributes:
        cut: Whether it has lost its way to the store, as a gateway that was killed has.
    """

    shared = True

    def __init__(self, store: SharedStore, faults: Faults, chance: random.Random) -> None:
        super().__init__()
        self.faults = faults
        self.cut = False
        self._store = store
        self._chance = chance
        self._known: dict[str, _Known] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        for task in (self._polling, *self._tasks):
            if task is not None:
                task.cancel()

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        known = self._known.setdefault(session, self._now(session))
        known.users += 1
        end = self.feed.subscribe(session, listener)

        def unsubscribe() -> None:
            end()
            known.users -= 1
            if not known.users and self._known.get(session) is known:
                del self._known[session]

        return unsubscribe

    def wake(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        """Another gateway has changed the session."""
        times = 0 if self._chance.random() < self.faults.lost_wakeups else 1
        times += self._chance.random() < self.faults.repeated_wakeups
        for _ in range(times):
            task = asyncio.create_task(self._woken(session, epoch, events, changes))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _woken(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        await self._pause()
        self.report(session, epoch, events, changes)

    def report(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        """Report a commit; of a session that is subscribed to, also every earlier one that is not reported yet."""
        if session in self._known:
            self._catch_up(session)
        else:
            self.feed.announce(session, epoch, events, changes)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.faults.poll)
            for session in list(self._known):
                self._catch_up(session)

    def _catch_up(self, session: str) -> None:
        """Report what became of a session since the last time."""
        known, now = self._known[session], self._now(session)
        if known.epoch != now.epoch:
            before, known.epoch, known.next_offset, known.closed = known.epoch, now.epoch, now.first_offset, False
            if before:
                self.feed.announce(session, before, changes=["deleted"])
        held = self._store.memory._sessions.get(session)
        if held is None or not now.epoch:
            return
        events = held.events[max(0, known.next_offset - held.first_offset) :]
        changes: list[Change] = ["trimmed"] if now.first_offset > known.first_offset else []
        changes += ["closed"] if now.closed and not known.closed else []
        known.next_offset, known.first_offset, known.closed = now.next_offset, now.first_offset, now.closed
        if events or changes:
            self.feed.announce(session, now.epoch, events, changes)

    def _now(self, session: str) -> _Known:
        held = self._store.memory._sessions.get(session)
        if held is None or held.draft:
            return _Known("", 0, 0, closed=False)
        return _Known(held.epoch, held.next_offset, held.first_offset, held.closed)

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, self.faults.latency))

    async def _call(self, call: Callable[[MemoryEngine], Awaitable[T]], *, writes: bool = True) -> T:
        await self._pause()
        if self.cut:
            raise StorageFailedError("the store cannot be reached")
        self._store.caller = self
        try:
            result = await call(self._store.memory)  # which awaits nothing: no other call comes in between
        finally:
            self._store.caller = None
        await self._pause()
        if writes and self._chance.random() < self.faults.lost_answers:
            raise StorageFailedError("the answer was lost")
        return result

    async def append(self, append: Append) -> Appended:
        return await self._call(lambda memory: memory.append(append))

    def append_each(self, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        return asyncio.ensure_future(self._call(lambda memory: each_appended(memory.append, appends)))

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        return await self._call(lambda memory: memory.open_attempt(session, publication, epoch=epoch))

    async def read(
        self,
        session: str,
        offset: int,
        *,
        before: int,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        return await self._call(
            lambda memory: memory.read(session, offset, before=before, limit=limit, topics=topics, epoch=epoch),
            writes=False,
        )

    async def read_back(
        self,
        session: str,
        before: int,
        *,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        return await self._call(
            lambda memory: memory.read_back(session, before, limit=limit, topics=topics, epoch=epoch), writes=False
        )

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        return await self._call(lambda memory: memory.state(session, publisher=publisher), writes=False)

    async def forget_publisher(self, session: str, publisher: str, *, epoch: str) -> None:
        return await self._call(lambda memory: memory.forget_publisher(session, publisher, epoch=epoch))

    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        return await self._call(lambda memory: memory.trim(session, before, epoch=epoch, limit=limit))

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        return await self._call(lambda memory: memory.get_records(keys), writes=False)

    async def records_after(self, key: str, *, prefix: str = "", limit: int | None = 100) -> list[Record]:
        return await self._call(lambda memory: memory.records_after(key, prefix=prefix, limit=limit), writes=False)

    async def count_records(self, prefix: str) -> tuple[int, int]:
        return await self._call(lambda memory: memory.count_records(prefix), writes=False)

    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        return await self._call(lambda memory: memory.change_record(key, value, revision=revision, erase=erase))

    async def create_session(self, new: NewSession) -> tuple[SessionState, bool]:
        return await self._call(lambda memory: memory.create_session(new))

    async def configure(self, session: str, **how: Any) -> None:
        await self._call(lambda memory: memory.configure(session, **how))

    async def delete_session(self, session: str, *, epoch: str | None = None, draft: bool = False) -> bool:
        return await self._call(lambda memory: memory.delete_session(session, epoch=epoch, draft=draft))

    async def newest(
        self, *, before: tuple[str, str] | None, limit: int, within: Sequence[str], contains: str
    ) -> list[SessionState]:
        return await self._call(
            lambda memory: memory.newest(before=before, limit=limit, within=within, contains=contains), writes=False
        )

    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        return await self._call(lambda memory: memory.sessions(after=after, limit=limit, within=within), writes=False)

    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        return await self._call(lambda memory: memory.due(now, limit=limit), writes=False)

    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        return await self._call(lambda memory: memory.offset_within(session, size, epoch=epoch), writes=False)

    async def published(self, session: str, offset: int, *, epoch: str) -> Published | None:
        return await self._call(lambda memory: memory.published(session, offset, epoch=epoch), writes=False)

    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        return await self._call(lambda memory: memory.offset_at(session, moment, epoch=epoch), writes=False)
