"""The workflows of sessions that are watched or read, and of which no gateway follows a run."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from wakeline.gateway.following.finding.finder import Finder
from wakeline.gateway.following.finding.readers import Readers
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.roster import Roster
from wakeline.gateway.reaching import Connection
from wakeline.gateway.sessions import Run

_MOST: Final = 2_000
_LATEST_RUNS: Final = 10


class Wanted:
    """Finds the workflows that a sweep checks for the sessions of this gateway.

    Args:
        parts: The parts of the gateway.
        readers: Knows which sessions were read lately.
        roster: Knows which sessions have a followed workflow.
        finder: Names the namespaces.
    """

    def __init__(self, parts: Following, readers: Readers, roster: Roster, finder: Finder) -> None:
        self._parts = parts
        self._readers = readers
        self._roster = roster
        self._finder = finder
        self._sessions: dict[str, Mapping[str, Sequence[str]]] = {}  # of each namespace, by workflow

    def waits(self, session: str) -> bool:
        """Return whether a device is on a session, or it was read just now."""
        return self._parts.hub.watched(session) or session in self._readers

    def sessions(self, connection: Connection, workflow_id: str) -> Sequence[str]:
        """Return the sessions for which the last `workflows` of this namespace had a workflow."""
        return self._sessions.get(connection.namespace, {}).get(workflow_id, ())

    async def workflows(self, connection: Connection) -> Sequence[str]:
        """Return the workflows of sessions that wait, and of which no gateway follows a workflow."""
        named = self._finder.named(connection)
        waiting = [
            name for name in {*self._parts.hub.sessions(), *self._readers.sessions()} if not self._roster.follows(name)
        ]
        if len(waiting) > _MOST:
            waiting = random.sample(waiting, _MOST)  # the others follow in later sweeps
        wanted: defaultdict[str, list[str]] = defaultdict(list)
        async for session, runs in self._parts.runs.of_all(waiting):
            if len(wanted) >= _MOST:
                break
            if not any(map(self._is_followed, runs)):
                its = [run.workflow_id for run in runs if run.namespace == named and not run.activity]
                for workflow_id in dict.fromkeys([session, *its[-_LATEST_RUNS:]]):
                    wanted[workflow_id].append(session)
        self._sessions[connection.namespace] = wanted
        return list(wanted)

    def _is_followed(self, run: Run) -> bool:
        """Return whether a gateway follows a run, or is about to."""
        return run.open and not run.activity and (not run.namespace or run.namespace in self._parts.namespaces)
