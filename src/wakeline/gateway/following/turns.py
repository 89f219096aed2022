"""The turns of a session's runs: a later one begins when earlier ones can add nothing more."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from wakeline.gateway.following.following import Following, Subject
from wakeline.gateway.following.life.order import before
from wakeline.gateway.following.roster import Roster
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.sessions import Run

_LATE_SECONDS: Final = 5.0
"""Seconds that the owner of a rest at another gateway has beyond lease and drain grace, to hear of the later run."""


class Turns:
    """Lets a run wait for its turn.

    Args:
        parts: The parts of the gateway.
        roster: The followers of this gateway.
    """

    def __init__(self, parts: Following, roster: Roster) -> None:
        self._parts = parts
        self._roster = roster
        parts.ownership.wakeups.listen("turn", self._hurry)

    async def come(self, session: str, run: Run) -> None:
        """Return when earlier runs have added their rests, or cannot add them any more.

        An earlier run of the same workflow has ended, too, even if we have not come to its end.
        """
        waited_for: set[str] = set()
        # While one is waited for, another may end and have an unread rest, too.
        while others := [r for r in before(run, await self._parts.runs.of(session)) if r.run not in waited_for]:
            waited_for |= {other.run for other in others}
            for other in others:
                await self._over(session, other)

    async def _over(self, session: str, run: Run) -> None:
        """Wait for a run's end and its rest; abandon a rest whose gateway is too late."""
        key, until = (session, run.run), None
        while True:
            if (rest := self._roster.rests.get(key)) is not None:
                rest.hurry()
            if (task := self._roster.tasks.get(key)) is not None:
                await asyncio.wait([task])
                continue
            # Another gateway follows it, or nobody: its lease has just moved, and it is about to be followed here.
            latest = await self._parts.runs.latest(session, run.run)
            if key in self._roster.tasks:
                continue
            if latest is None or not (latest.open or latest.owed):
                return
            # If its gateway was killed, the next one has the lease after that time.
            settings = self._parts.settings
            until = until or monotonic() + 1.25 * settings.lease + settings.drain_grace + _LATE_SECONDS
            if monotonic() >= until and (state := await self._parts.engine.state(session)) is not None:
                if latest.owed:
                    await Subject(session, latest, self._parts, state.epoch).abandon()
                return
            if not self._parts.ownership.owns(run.workflow_id):
                self._parts.ownership.wakeups.wake("turn", run.workflow_id, f"{run.run} {session}")
            await asyncio.sleep(RETRY_SECONDS)

    def _hurry(self, _: str, detail: str) -> None:
        name, _, session = detail.partition(" ")
        if (rest := self._roster.rests.get((session, name))) is not None:
            rest.hurry()
