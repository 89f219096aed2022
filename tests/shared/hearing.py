"""What a listener of a session hears."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.support import data_of
from wakeline.events import Event
from wakeline.gateway.log import Change, Engine


class Heard:
    """What a listener of one session has heard."""

    def __init__(self, engine: Engine, session: str) -> None:
        self.all: list[tuple[str, object]] = []
        self.offsets: list[int] = []
        self.end = engine.subscribe(session, self._listener)

    def _listener(self, _: str, epoch: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        self.offsets += [event.offset for event in events]
        self.all += [(epoch, data_of(event)) for event in events]
        self.all += [(epoch, change) for change in changes]

    async def until(self, last: object, seconds: float = 60.0) -> None:
        """Return when the last thing heard is this event's data or this change."""
        async with asyncio.timeout(seconds):
            while not self.all or self.all[-1][1] != last:
                await asyncio.sleep(0.005)
