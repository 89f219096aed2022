"""The followers of this gateway, indexed by session and by workflow."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Container
from typing import Any, TypeAlias

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
        self._activities: set[Key] = set()
        self._sessions: defaultdict[str, set[str]] = defaultdict(set)  # of workflows' open runs
        self._of_workflow: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
        self._of_session: defaultdict[str, set[Key]] = defaultdict(set)

    def add(self, follower: Follower) -> Key:
        """Add the follower of a run that has none."""
        session, run = follower.session, follower.run
        key = (session, run.run)
        self._of_session[session].add(key)
        if not run.open:
            self.rests[key] = follower
            return key
        self.open[key] = follower
        if run.activity:  # its id may be that of a workflow, too
            self._activities.add(key)
        else:
            self._of_workflow[run.namespace, run.workflow_id].add(key)
            self._sessions[session].add(run.run)
        return key

    def remove(self, key: Key) -> None:
        """Remove a run's follower, and stop its task."""
        self.tasks.pop(key).cancel()
        self.rests.pop(key, None)
        self._activities.discard(key)
        _discard(self._of_session, key[0], key)
        if (follower := self.open.pop(key, None)) is not None:
            _discard(self._of_workflow, (follower.run.namespace, follower.run.workflow_id), key)
            _discard(self._sessions, key[0], key[1])

    def get(self, key: Key) -> Follower | None:
        """Return a run's follower, if it has one."""
        return self.open.get(key) or self.rests.get(key)

    def workflows(self) -> int:
        """Return how many open runs are those of workflows rather than standalone activities."""
        return len(self.open) - len(self._activities)

    def closely(self) -> int:
        """Return how many open runs are watched closely."""
        return sum(follower.attention.closely for follower in self.open.values())

    def sessions(self) -> Collection[str]:
        """Return the sessions of which a workflow's open run is followed.

        A standalone activity does not count: the workflow of the session may still have to be found.
        """
        return self._sessions.keys()

    def of_session(self, session: str) -> Collection[Key]:
        """Return the runs of a session."""
        return list(self._of_session.get(session, ()))

    def of_workflow(self, namespace: str, workflow_id: str) -> Collection[Key]:
        """Return the open runs of a workflow; the main namespace has no name here."""
        return self._of_workflow.get((namespace, workflow_id), ())

    def followed(self, session: str) -> dict[str, Followed]:
        """Return the open runs of a session, by name."""
        followers = [self.open[key] for key in self._of_session.get(session, ()) if key in self.open]
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


def _discard(sets: dict[Any, set[Any]], key: object, value: object) -> None:
    """Remove a value from one of many sets, and the set if it is empty."""
    sets[key].discard(value)
    if not sets[key]:
        del sets[key]
