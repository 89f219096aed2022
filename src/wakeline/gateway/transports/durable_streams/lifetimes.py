"""Streams that end when they are unused: reads and writes restart a stream's `Stream-TTL`.

The exact end of a stream is kept in memory. The log has a later deadline, after which the session is deleted whatever
happens. The deadline is moved only when the exact end passes it, so that a stream in constant use costs one commit in
a tenth of its time to live. A gateway that starts, or that shares its store, knows the deadline only, so a stream may
live longer by that much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from wakeline.background import begin
from wakeline.errors import EpochChangedError, SessionNotFoundError, UnavailableError
from wakeline.gateway.log import Change, Commit, Engine
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
    """The end of each stream that is used through this gateway.

    Args:
        engine: The log.
        clock: Returns the Unix time.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._lives: dict[str, _Life] = {}
        self._without: set[tuple[str, str]] = set()  # names and epochs of sessions without a time to live
        self._tasks: set[asyncio.Task[None]] = set()
        engine.feed.listen(self._committed)

    def __len__(self) -> int:
        """Return how many streams have an end in memory."""
        return len(self._lives)

    def first_deadline(self, lifetime: Lifetime) -> float | None:
        """Return the deadline of a stream that is created now; None if it never ends."""
        if lifetime.expires_at is not None:
            return lifetime.expires_at.timestamp()
        return None if lifetime.ttl is None else self._clock() + lifetime.ttl + _slack(lifetime.ttl)

    def over(self, stream: Stream) -> bool:
        """Return whether the stream has ended."""
        now = self._clock()
        if stream.lifetime.expires_at is not None:
            return now >= stream.lifetime.expires_at.timestamp()
        if stream.lifetime.ttl is None:
            return False
        # Uses at other gateways are known by the deadline alone.
        life = None if self._engine.shared else self._lives.get(stream.name)
        kept_until = stream.state.deadline or 0
        if life is not None and life.epoch == stream.epoch and life.kept_until >= kept_until:
            return now >= life.ends  # otherwise another gateway has used the stream since, and has moved the deadline
        return stream.state.deadline is not None and now >= stream.state.deadline

    async def use(self, stream: Stream) -> None:
        """Restart the stream's time to live, because it is read or written."""
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
                # The stream may have been deleted since it was read; then it needs no deadline.
                with suppress(SessionNotFoundError, EpochChangedError):
                    await self._engine.configure(stream.name, epoch=stream.epoch, deadline=life.kept_until)
            except BaseException:
                life.kept_until = before
                raise

    @asynccontextmanager
    async def used(self, stream: Stream) -> AsyncIterator[None]:
        """Keep the stream alive inside the block, because it is read live."""
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

    def _committed(self, commits: Sequence[Commit]) -> None:
        for session, epoch, events, changes in commits:
            if events:
                self._appended(session, epoch)
            for change in changes:
                self._changed(session, epoch, change)

    def _appended(self, session: str, epoch: str) -> None:
        """Restart a stream's time to live after any write, including publishers' and followers'."""
        life = self._lives.get(session)
        if life is not None and life.epoch == epoch:
            life.ends = self._clock() + life.ttl
            known = life.ends <= life.kept_until
        else:
            known = (session, epoch) in self._without
        if not known:
            begin(self._learn(session), self._tasks)

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
