"""Streams that end when nobody uses them: `Stream-TTL` begins anew with each read and write.

When a stream ends is kept in memory, to the moment. The log has a later moment, past which the session is removed whatever
happens: it is moved on only when the one in memory has passed it, so that a stream that is read all the time costs
one commit in a tenth of its time to live. A gateway that starts anew knows the later one only: a stream may live so much longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from wakeline.errors import EpochChangedError, SessionNotFoundError, UnavailableError
from wakeline.events import Event
from wakeline.gateway.log import Change, Engine
from wakeline.gateway.runtime import supervised
from wakeline.gateway.transports.durable_streams.headers import Lifetime
from wakeline.gateway.transports.durable_streams.stream import Stream

_LEAST_SLACK: Final = 1.0
_LEAST_PAUSE: Final = 0.5
_MAX_REMEMBERED: Final = 100_000


@dataclass(slots=True)
class _Life:
    epoch: str
    ttl: int
    ends: float
    kept_until: float


class Lifetimes:
    """When each stream that is in use here ends.

    Args:
        engine: The log.
        clock: Tells the unix time.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._lives: dict[str, _Life] = {}
        self._without: set[tuple[str, str]] = set()  # lives of sessions without a time to live
        self._tasks: set[asyncio.Task[None]] = set()
        engine.feed.listen(self._committed)

    def __len__(self) -> int:
        """How many streams are remembered."""
        return len(self._lives)

    def first_deadline(self, lifetime: Lifetime) -> float | None:
        """Until when the log keeps a stream that is created now."""
        if lifetime.expires_at is not None:
            return lifetime.expires_at.timestamp()
        return None if lifetime.ttl is None else self._clock() + lifetime.ttl + _slack(lifetime.ttl)

    def over(self, stream: Stream) -> bool:
        """Whether the stream has ended."""
        now = self._clock()
        if stream.lifetime.expires_at is not None:
            return now >= stream.lifetime.expires_at.timestamp()
        if stream.lifetime.ttl is None:
            return False
        life = self._lives.get(stream.name)
        if life is not None and life.epoch == stream.epoch:
            return now >= life.ends
        return stream.state.deadline is not None and now >= stream.state.deadline

    async def use(self, stream: Stream) -> None:
        """The stream is read or written: its time begins anew."""
        ttl = stream.lifetime.ttl
        if ttl is None:
            return
        life = self._lives.get(stream.name)
        if life is None or life.epoch != stream.epoch:
            life = self._lives[stream.name] = _Life(stream.epoch, ttl, 0, stream.state.deadline or 0)
        life.ends = self._clock() + ttl
        if life.ends > life.kept_until:
            before, life.kept_until = life.kept_until, life.ends + _slack(ttl)
            try:
                # It may have been deleted meanwhile: then there is nothing to keep.
                with suppress(SessionNotFoundError, EpochChangedError):
                    await self._engine.configure(stream.name, epoch=stream.epoch, deadline=life.kept_until)
            except BaseException:
                life.kept_until = before
                raise

    @asynccontextmanager
    async def used(self, stream: Stream) -> AsyncIterator[None]:
        """A block during which the stream is read live: its time does not run."""
        ttl = stream.lifetime.ttl
        if ttl is None:
            yield
            return
        using = supervised(f"lifetime of {stream.name}", lambda: self._use_on(stream, max(_LEAST_PAUSE, ttl / 2)))
        try:
            yield
        finally:
            using.cancel()

    async def _use_on(self, stream: Stream, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            with suppress(UnavailableError):
                await self.use(stream)

    def _committed(self, session: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        if events:
            self._appended(session, epoch)
        for change in changes:
            self._changed(session, epoch, change)

    def _appended(self, session: str, epoch: str) -> None:
        """A write renews, whoever wrote: publishers and followers too."""
        life = self._lives.get(session)
        if life is not None and life.epoch == epoch:
            life.ends = self._clock() + life.ttl
            known = life.ends <= life.kept_until
        else:
            known = (session, epoch) in self._without
        if not known:
            task = asyncio.create_task(self._learn(session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _learn(self, session: str) -> None:
        with suppress(UnavailableError):
            state = await self._engine.state(session)
            if state is None:
                return
            stream = Stream.of(state)
            if stream.lifetime.ttl is not None:
                await self.use(stream)
                return
            if len(self._without) >= _MAX_REMEMBERED:
                self._without.clear()
            self._without.add((session, state.epoch))

    def _changed(self, session: str, epoch: str, change: Change) -> None:
        life = self._lives.get(session)
        if change == "deleted" and life is not None and life.epoch == epoch:
            del self._lives[session]
        if change in ("deleted", "configured"):
            self._without.discard((session, epoch))


def _slack(ttl: int) -> float:
    return max(_LEAST_SLACK, ttl / 10)
