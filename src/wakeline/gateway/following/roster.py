"""The followers of open runs, indexed by session and by workflow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any, TypeAlias

from wakeline.gateway.following.follower import Follower

Key: TypeAlias = tuple[str, str]
"""A session, and the name of one of its runs."""


class Roster:
    """The followers of open runs.

    Attributes:
        followers: The follower of each run.
        activities: The runs that are standalone activities.
        sessions: The runs of workflows that are followed, by session.
    """

    def __init__(self) -> None:
        self.followers: dict[Key, Follower] = {}
        self.activities: set[Key] = set()
        self.sessions: defaultdict[str, set[str]] = defaultdict(set)
        self._of_workflow: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
        self._of_session: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, follower: Follower) -> None:
        """Add the follower of a run that has none."""
        session, run = follower.session, follower.run
        key = (session, run.run)
        self.followers[key] = follower
        if run.activity:  # its id may be that of a workflow, too
            self.activities.add(key)
        else:
            self._of_workflow[run.namespace, run.workflow_id].add(key)
            self.sessions[session].add(run.run)
        self._of_session[session].add(run.run)

    def remove(self, key: Key) -> Follower | None:
        """Remove and return a run's follower, if it has one."""
        self.activities.discard(key)
        follower = self.followers.pop(key, None)
        if follower is not None:
            _discard(self._of_workflow, (follower.run.namespace, follower.run.workflow_id), key)
            for sets in (self._of_session, self.sessions):
                _discard(sets, key[0], key[1])
        return follower

    def workflows(self) -> int:
        """Return how many of the runs are those of workflows rather than standalone activities."""
        return len(self.followers) - len(self.activities)

    def of_workflow(self, namespace: str, workflow_id: str) -> Collection[Key]:
        """Return the runs of a workflow; the main namespace has no name here."""
        return self._of_workflow.get((namespace, workflow_id), ())

    def of_session(self, session: str) -> dict[str, Follower]:
        """Return the followers of a session's runs, by name."""
        return {run: self.followers[session, run] for run in self._of_session.get(session, ())}


def _discard(sets: dict[Any, set[Any]], key: object, value: object) -> None:
    """Remove a value from one of many sets, and the set if it is empty."""
    sets[key].discard(value)
    if not sets[key]:
        del sets[key]
