"""The followers of this gateway, indexed by session and by workflow."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Container
from typing import TypeAlias

from wakeline.gateway.following.follower import Follower
from wakeline.gateway.sessions import Followed

Key: TypeAlias = tuple[str, str]
"""A session, and the name of one of its runs."""


class Roster:
    """The followers of open runs, and those of ended runs with an unread rest.

    Attributes:
        open: The follower of each open run.
        rests: The follower of each ended run.
        tasks: The task of each follower.
    """

    def __init__(self) -> None:
        self.open: dict[Key, Follower] = {}
        self.rests: dict[Key, Follower] = {}
        self.tasks: dict[Key, asyncio.Task[None]] = {}
        self._sets: defaultdict[tuple[str, ...], set[Key]] = defaultdict(set)

    def add(self, follower: Follower) -> None:
        """Add the follower of a run that has none."""
        key = (follower.session, follower.run.run)
        (self.open if follower.run.open else self.rests)[key] = follower
        for name in self._names(key):
            self._sets[name].add(key)

    def remove(self, key: Key) -> None:
        """Remove a run's follower, and stop its task."""
        self.tasks.pop(key).cancel()
        for name in self._names(key):
            self._sets[name].discard(key)
            if not self._sets[name]:
                del self._sets[name]
        self.open.pop(key, None)
        self.rests.pop(key, None)

    def _names(self, key: Key) -> list[tuple[str, ...]]:
        """Return the names of the sets that a run is in."""
        session, follower = key[0], self.open.get(key)
        if follower is None:
            return [("session", session)]
        run = follower.run
        if run.activity:  # its id may be that of a workflow, too
            return [("session", session), ("activities",)]
        return [("session", session), ("workflows of", session), ("workflow", run.namespace, run.workflow_id)]

    def get(self, key: Key) -> Follower | None:
        """Return a run's follower, if it has one."""
        return self.open.get(key) or self.rests.get(key)

    def workflows(self) -> int:
        """Return how many open runs are those of workflows rather than standalone activities."""
        return len(self.open) - len(self._sets.get(("activities",), ()))

    def closely(self) -> int:
        """Return how many open runs are watched closely."""
        return sum(follower.attention.closely for follower in self.open.values())

    def follows(self, session: str) -> bool:
        """Return whether an open run of a workflow is followed into a session.

        A standalone activity does not count: the workflow of the session may still have to be found.
        """
        return ("workflows of", session) in self._sets

    def of_session(self, session: str) -> Collection[Key]:
        """Return the runs of a session."""
        return list(self._sets.get(("session", session), ()))

    def of_workflow(self, namespace: str, workflow_id: str) -> Collection[Key]:
        """Return the open runs of a workflow; the main namespace has no name here."""
        return self._sets.get(("workflow", namespace, workflow_id), ())

    def followed(self, session: str) -> dict[str, Followed]:
        """Return the open runs of a session, by name."""
        followers = [self.open[key] for key in self.of_session(session) if key in self.open]
        return {each.run.run: Followed(each.run, each.state, each.telling) for each in followers}

    def nudge(self, namespace: str, workflow_id: str) -> list[asyncio.Task[None]]:
        """Check the open runs of a workflow at once; return their tasks."""
        for key in self.of_workflow(namespace, workflow_id):
            self.open[key].nudge()
        return self.tasks_of(namespace, workflow_id)

    def tasks_of(self, namespace: str, workflow_id: str) -> list[asyncio.Task[None]]:
        """Return the tasks of a workflow's open runs; each ends when the run's end is reported."""
        return [self.tasks[key] for key in self.of_workflow(namespace, workflow_id)]

    def ended(self, run_ids: Container[str]) -> None:
        """Check those of these Temporal runs that are followed: they have ended."""
        for follower in self.open.values():
            if follower.run.run_id in run_ids:
                follower.nudge()
