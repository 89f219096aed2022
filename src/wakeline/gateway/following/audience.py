"""The sessions that devices are on: at this gateway, or at another one that has reported it.

A run's follower may be at another gateway than the devices of its session. Each gateway reports the sessions that its own
devices are on to the owners of their open runs by wake-ups, again and again, and an owner believes that for a while.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from wakeline.errors import UnavailableError
from wakeline.gateway.delivery import Hub
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.runtime import log_failure
from wakeline.gateway.sessions import Runs

_CHECK_SECONDS: Final = 2.0
_REPORT_SECONDS: Final = 30.0
"""Seconds from one report of a session to the next: a run may have begun, or an owner have changed."""
_BELIEVED_SECONDS: Final = 100.0
"""Longer than three reports: one may be lost, and many wait for each other."""
_MOST: Final = 2_000  # sessions in one check
_log = structlog.get_logger(__name__)


class Audience:
    """Knows on which sessions devices are, and reports those of this gateway to the others.

    Args:
        hub: Knows on which sessions devices of this gateway are.
        runs: The record of each session's runs.
        ownership: Knows which workflows other gateways follow, and sends the reports.
    """

    def __init__(self, hub: Hub, runs: Runs, ownership: Ownership) -> None:
        self._hub = hub
        self._runs = runs
        self._ownership = ownership
        self._elsewhere: dict[str, float] = {}  # by session: until when it is believed, the earliest first
        self._reported: dict[str, float] = {}
        self._listeners: list[Callable[[], None]] = []
        ownership.wakeups.listen("watched", self._note)

    def watches(self, session: str) -> bool:
        """Return whether a device is on a session at any gateway, as far as is known."""
        return self._hub.watched(session) or self._elsewhere.get(session, 0) > monotonic()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the first device comes to a session or the last one leaves it."""
        self._hub.listen(listener)
        self._listeners.append(listener)

    async def run(self) -> None:
        """Report the sessions of this gateway's devices until cancelled."""
        while self._ownership.shared:
            self._expire()
            try:
                await self._report()
            except UnavailableError as error:
                log_failure(_log, "cannot report where devices are now", error)
            await asyncio.sleep(_CHECK_SECONDS)

    async def _report(self) -> None:
        watched, now = self._hub.sessions(), monotonic()
        self._reported = {session: self._reported.get(session, -math.inf) for session in watched}
        due = [session for session in watched if self._reported[session] <= now - _REPORT_SECONDS]
        async for session, runs in self._runs.of_all(sorted(due, key=self._reported.__getitem__)[:_MOST]):
            # The second report comes at a random time, which spreads the reports of sessions that came together.
            is_new = self._reported[session] == -math.inf
            self._reported[session] = now - random.uniform(0, _REPORT_SECONDS) if is_new else now
            for run in runs:
                if run.open and not run.activity:
                    self._ownership.wakeups.wake("watched", run.workflow_id, session, urgent=False)

    def _note(self, _: str, session: str) -> None:
        is_new = not self.watches(session)
        self._elsewhere.pop(session, None)
        self._elsewhere[session] = monotonic() + _BELIEVED_SECONDS
        if is_new:
            self._notify()

    def _expire(self) -> None:
        """Forget the sessions that have not been reported for a while."""
        known, now = len(self._elsewhere), monotonic()
        while self._elsewhere and self._elsewhere[oldest := next(iter(self._elsewhere))] <= now:
            del self._elsewhere[oldest]
        if len(self._elsewhere) < known:
            self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()
