"""Removes messages of trimmed events, deleted sessions and removed records.

The last message of a deleted session or record stays for a while, so that every gateway learns of it. A gateway that was away
for longer learns it from the beginning of the next life, or when it starts.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from wakeline.background import cancel_all
from wakeline.errors import WakelineError
from wakeline.gateway.log.engines.nats.index import Index
from wakeline.gateway.log.engines.nats.link import Link, RefusedError
from wakeline.gateway.log.engines.nats.records import RecordStore
from wakeline.gateway.log.engines.nats.streams import Stream, Streams
from wakeline.gateway.runtime import supervised

_PAUSE_SECONDS: Final = 0.5
_STAY_SECONDS: Final = 600.0


class Eraser:
    """Removes messages in the background.

    Args:
        link: The connection.
        streams: The streams.
        index: Has the deleted sessions.
        records: Has the removed records.
    """

    def __init__(self, link: Link, streams: Streams, index: Index, records: RecordStore) -> None:
        self._link = link
        self._streams = streams
        self._index = index
        self._records = records
        self._due: dict[str, tuple[int, float]] = {}  # by session: the first sequence that stays, and since when
        self._deleted: set[str] = set()
        self._stay = _STAY_SECONDS * random.uniform(1, 1.2)  # gateways do not all begin at once
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the background task."""
        self._task = supervised("erasing", self._run)

    async def stop(self) -> None:
        """Stop, after a last attempt to remove what is due."""
        await cancel_all(self._task)
        try:
            async with asyncio.timeout(2):
                await self._remove()
        except (WakelineError, TimeoutError):
            pass  # the next deletion, or the next start, makes up for it

    @property
    def pending(self) -> float:
        """The seconds since the oldest deletion whose events are not removed; 0 if there is none."""
        since = [self._due[name][1] for name in self._deleted if name in self._due]
        return time.monotonic() - min(since) if since else 0.0

    def remove(self, session: str, before: int, *, deleted: bool = False) -> None:
        """Remove the messages of a session before a sequence soon."""
        if before <= 1:
            return  # there are none, and JetStream takes 0 for all
        keep, since = self._due.get(session, (0, time.monotonic()))
        self._due[session] = (max(keep, before), since)
        if deleted:
            self._deleted.add(session)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._remove()
            now = time.monotonic()
            for name, (seq, since) in list(self._index.ended.items()):
                if now - since > self._stay:
                    await self._purge(self._streams.of(name), name, seq + 1)
                    self._index.forget(name, seq)
            for key, (seq, since) in list(self._records.removed.items()):
                if now - since > self._stay:
                    await self._purge(self._streams.records, key, seq + 1)
                    self._records.forget(key, seq)

    async def _remove(self) -> None:
        for name, (before, _) in list(self._due.items()):
            await self._purge(self._streams.of(name), name, before)
            if self._due[name][0] == before:
                del self._due[name]
                self._deleted.discard(name)

    async def _purge(self, stream: Stream, name: str, before: int) -> None:
        try:
            await self._link.api(f"STREAM.PURGE.{stream.name}", {"filter": stream.subject(name), "seq": before})
        except RefusedError as error:
            raise self._link.failed(error) from error
