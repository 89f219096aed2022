"""The turns of a session's runs: a later one begins when earlier ones can add nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from wakeline.gateway.following.follower import Follower
from wakeline.gateway.following.following import Following, Subject
from wakeline.gateway.following.life.order import before
from wakeline.gateway.following.roster import Key
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.log import Engine
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.sessions import Run, Runs

_LATE_SECONDS: Final = 5.0
"""Seconds that the owner of a rest at another gateway has beyond lease and drain grace, to hear of the later run."""


class Turns:
    """Lets a run wait for its turn.

    Args:
        engine: The log.
        runs: The record of each session's runs.
        ownership: Knows which rests other gateways read.
        parts_of: Returns what the followers of a run's namespace share.
        followers: The followers of open runs.
        rests: Those of ended runs with an unread rest.
        tasks: The task of each.
    """

    def __init__(
        self,
        engine: Engine,
        runs: Runs,
        ownership: Ownership,
        parts_of: Callable[[Run], Following],
        followers: Mapping[Key, Follower],
        rests: Mapping[Key, Follower],
        tasks: Mapping[Key, asyncio.Task[None]],
    ) -> None:
        self._engine = engine
        self._runs = runs
        self._ownership = ownership
        self._parts_of = parts_of
        self._followers = followers
        self._rests = rests
        self._tasks = tasks
        ownership.wakeups.listen("turn", self._hurry)

    async def come(self, session: str, run: Run) -> None:
        """Return when earlier runs have added their rests, or cannot add them any more.

        An earlier run of the same workflow has ended, too, even if we have not come to its end.
        """
        waited_for: set[str] = set()
        # While one is waited for, another may end and have an unread rest, too.
        while others := [r for r in before(run, await self._runs.of(session)) if r.run not in waited_for]:
            waited_for |= {other.run for other in others}
            for other in others:
                key = (session, other.run)
                while key in self._followers:
                    await asyncio.wait([self._tasks[key]])
                while key in self._rests:
                    self._rests[key].hurry()
                    await asyncio.wait([self._tasks[key]])
                if not self._ownership.owns(other.workflow_id):  # its lease may have moved meanwhile
                    await self._elsewhere(session, other)

    async def _elsewhere(self, session: str, run: Run) -> None:
        """Wait for a rest that another gateway reads; abandon it if that gateway is too late."""
        settings, detail = self._parts_of(run).settings, f"{run.run} {session}"
        # If its gateway was killed, the next one has the lease after that time.
        until = monotonic() + 1.25 * settings.lease + settings.drain_grace + _LATE_SECONDS
        while (latest := await self._runs.latest(session, run.run)) is not None and latest.owed:
            if monotonic() >= until and (state := await self._engine.state(session)) is not None:
                await Subject(session, latest, self._parts_of(run), state.epoch).abandon()
                return
            self._ownership.wakeups.wake("turn", run.workflow_id, detail)
            self._hurry("", detail)  # its lease may have moved to this gateway
            await asyncio.sleep(RETRY_SECONDS)

    def _hurry(self, _: str, detail: str) -> None:
        name, _, session = detail.partition(" ")
        if (rest := self._rests.get((session, name))) is not None:
            rest.hurry()
