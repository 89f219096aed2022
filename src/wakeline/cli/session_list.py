"""Which sessions `wakeline sessions list` prints."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fnmatch import translate
from typing import Literal, TypeAlias

from wakeline.client import SessionClient, SessionState

State: TypeAlias = Literal["running", "settled", "open", "closed"]
RunStatus: TypeAlias = Literal["running", "completed", "failed", "canceled", "terminated", "timed_out", "unknown"]

_HALVES = range(0xD800, 0xE000)


@dataclass(frozen=True)
class Filter:
    """The condition that a session must meet to be listed.

    Attributes:
        match: A pattern of their names; None for all.
        state: Their state.
        run: The status of their latest run.
    """

    match: str | None = None
    state: State | None = None
    run: RunStatus | None = None

    async def of(self, client: SessionClient, after: str) -> AsyncIterator[SessionState]:
        """Yield the sessions of a gateway that match, by name, from those after a name on."""
        prefix = re.split(r"[*?[]", self.match or "", maxsplit=1)[0]
        pattern = re.compile(translate(self.match or "*"))
        async for found in client.sessions(after=max(after, _before(prefix))):
            if found.session > prefix and not found.session.startswith(prefix):
                return  # names are sorted: no later one begins with the prefix
            wanted = self.state in (None, state_of(found)) and self.run in (None, run_of(found))
            if wanted and pattern.match(found.session):
                yield found


def state_of(session: SessionState) -> State:
    """Return the state of a session in one word."""
    if session.closed:
        return "closed"
    if session.settled:
        return "settled"
    return "running" if any(run.status == "running" for run in session.runs) else "open"


def run_of(session: SessionState) -> str | None:
    """Return the status of a session's latest run; None without a run."""
    return session.runs[-1].status if session.runs else None


def _before(prefix: str) -> str:
    """Return a text that sorts before every name with this prefix, and after most of the others."""
    if not prefix or ord(prefix[-1]) <= ord(" ") or ord(prefix[-1]) - 1 in _HALVES:
        return prefix[:-1]
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}\U0010ffff"
