"""What all that follow runs of one namespace have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from wakeline.gateway.delivery import Accept
from wakeline.gateway.following.reaching.connection import Connection
from wakeline.gateway.sessions import Intents, Run, Runs
from wakeline.gateway.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Following:
    """What followers share.

    Attributes:
        connection: Temporal, in the run's namespace.
        accept: The way into the log.
        runs: The record of each session's runs.
        intents: The record of each session's inputs.
        settings: How often to read, how long to wait for a worker at the end.
        settled: Called with the session when its record says that no run is open.
        watched: Whether a device is on a session.
        child: Has a child that says where it speaks followed; given the namespace, the Workflow Id and the run id.
        earlier: Awaited before a run's first event: what earlier ones still owe the session comes first.
        looks: Lets so many runs be looked at at once.
        reads: Lets so many streams of runs that are swept be read at once.
        late_reads: The same of runs that have ended and owe something: nobody may be there to answer, and others must not wait.
    """

    connection: Connection
    accept: Accept
    runs: Runs
    intents: Intents
    settings: Settings
    settled: Callable[[str], None]
    watched: Callable[[str], bool]
    child: Callable[[str, str, str], Awaitable[None]]
    earlier: Callable[[str, Run], Awaitable[None]]
    looks: asyncio.Semaphore
    reads: asyncio.Semaphore
    late_reads: asyncio.Semaphore
