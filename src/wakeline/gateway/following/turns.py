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
                key = (session, other.run)
                while key in self._roster.open:
                    await asyncio.wait([self._roster.tasks[key]])
                while key in self._roster.rests:
                    self._roster.rests[key].hurry()
                    await asyncio.wait([self._roster.tasks[key]])
                if not self._parts.ownership.owns(other.workflow_id):  # its lease may have moved meanwhile
                    await self._elsewhere(session, other)

    async def _elsewhere(self, session: str, run: Run) -> None:
        """Wait for a rest that another gateway reads; abandon it if that gateway is too late."""
        settings, detail = self._parts.settings, f"{run.run} {session}"
        # If its gateway was killed, the next one has the lease after that time.
        until = monotonic() + 1.25 * settings.lease + settings.drain_grace + _LATE_SECONDS
        while (latest := await self._parts.runs.latest(session, run.run)) is not None and latest.owed:
            if monotonic() >= until and (state := await self._parts.engine.state(session)) is not None:
                await Subject(session, latest, self._parts, state.epoch).abandon()
                return
            self._parts.ownership.wakeups.wake("turn", run.workflow_id, detail)
            self._hurry("", detail)  # its lease may have moved to this gateway
            await asyncio.sleep(RETRY_SECONDS)

    def _hurry(self, _: str, detail: str) -> None:
        name, _, session = detail.partition(" ")
        if (rest := self._roster.rests.get((session, name))) is not None:
            rest.hurry()
