"""Resumes unfinished runs: at a start, when leases change, and when a run is registered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from wakeline.errors import UnavailableError
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.runtime import log_failure
from wakeline.gateway.sessions import Run

_WALK_SECONDS: Final = 600.0
_log = structlog.get_logger(__name__)


class Resuming:
    """Finds the unfinished runs of this gateway.

    Args:
        parts: The parts of the gateway.
        start: Follows a run of a session in a life of it, or in any if that is None; called again for a run that is
            followed.
    """

    def __init__(self, parts: Following, start: Callable[[str, Run, str | None], None]) -> None:
        self._parts = parts
        self._start = start
        # Apart from each other: the lives of all sessions are not read, and those of the named ones must be.
        self._all = False
        self._sessions: set[str] = set()
        self._asked = asyncio.Event()
        parts.ownership.wakeups.listen("run", lambda _, session: self.soon(session))

    def soon(self, session: str) -> None:
        """Resume the runs of a session: another gateway may have registered one, in any life."""
        self._sessions.add(session)
        self._asked.set()

    def all(self) -> None:
        """Resume the runs of all sessions."""
        self._all = True
        self._asked.set()

    async def run(self) -> None:
        """Resume when leases change or another gateway registers a run, and every ten minutes."""
        while True:
            try:
                async with asyncio.timeout(_WALK_SECONDS if self._parts.ownership.shared else None):
                    await self._asked.wait()
            except TimeoutError:  # a gateway that was killed may have registered a run and given no hint
                self._all = True
            self._asked.clear()
            every, sessions = self._all, self._sessions
            self._all, self._sessions = False, set()
            try:
                if every:
                    await self.resume(None)
                await self.resume(sessions)
            except BaseException as error:  # what was asked for is still to be resumed
                self._all |= every
                self._sessions |= sessions
                self._asked.set()
                if not isinstance(error, UnavailableError):
                    raise
                log_failure(_log, "cannot resume runs now", error)
                self.all()
                await asyncio.sleep(RETRY_SECONDS)

    async def resume(self, sessions: Collection[str] | None) -> None:
        """Follow the unfinished runs of these sessions that are ours; of all sessions if None.

        Raises:
            UnavailableError: The log cannot be read now.
        """
        lives: dict[str, str] = {}
        if sessions is None:
            unfinished = await self._parts.runs.unfinished()
        else:
            # The record of a session that is being deleted at another gateway may still be there.
            for session in sessions:
                if (state := await self._parts.engine.state(session)) is not None:
                    lives[session] = state.epoch
            unfinished = [(session, run) for session in lives for run in await self._parts.runs.of(session)]
        for session, run in unfinished:
            if run.namespace and run.namespace not in self._parts.namespaces:
                _log.warning("a run's namespace is not among the settings", session=session, namespace=run.namespace)
            elif self._parts.ownership.owns(run.workflow_id):
                # News of a deletion may be lost: then the run is still followed here into the life before.
                self._start(session, run, lives.get(session))
