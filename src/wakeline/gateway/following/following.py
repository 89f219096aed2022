"""The parts that following is joined from, and those that belong to one run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wakeline.errors import AttemptFencedError, SessionClosedError
from wakeline.events import compose, timestamp
from wakeline.gateway.delivery import Accept, Hub
from wakeline.gateway.following.audience import Audience
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.life.reports import SETTLED, Report
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.log import Engine, Publication
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.reaching import Connection, Namespaces, Serverless, describe_failure
from wakeline.gateway.sessions import Run, Runs
from wakeline.gateway.settings import Settings


class Limits:
    """How much goes on at once, in all namespaces together.

    Attributes:
        looks: Lets so many runs be described.
        reads: Lets so many streams of runs that are swept be read.
        late_reads: The same of runs that have ended: nobody may be there to answer, and others must not wait.
        activity_polls: Lets so many standalone activities have a waiting call.
    """

    def __init__(self, *, looks: int = 16, reads: int = 32, late_reads: int = 8, activity_polls: int = 200) -> None:
        self.looks = asyncio.Semaphore(looks)
        self.reads = asyncio.Semaphore(reads)
        self.late_reads = asyncio.Semaphore(late_reads)
        self.activity_polls = asyncio.Semaphore(activity_polls)


@dataclass(frozen=True, kw_only=True)
class Following:
    """The parts of the gateway that following uses, and those that all followers share.

    Attributes:
        namespaces: Temporal.
        engine: The log.
        accept: The way into it.
        runs: The record of each session's runs.
        settings: What is followed, and how often it is polled.
        hub: Knows on which sessions devices of this gateway are.
        ownership: Decides which workflows this gateway follows.
        audience: Knows on which sessions devices of any gateway are.
        child: Has a child of a followed run followed into the session that it names; given the parent, and the Workflow Id
            and the run of the child.
        earlier: Awaited before a run's first event: earlier runs of the session add their rests first.
        limits: How much goes on at once.
        serverless: Knows for which tasks Temporal starts workers.
    """

    namespaces: Namespaces
    engine: Engine
    accept: Accept
    runs: Runs
    settings: Settings
    hub: Hub
    ownership: Ownership
    audience: Audience
    child: Callable[[Subject, str, str], Awaitable[None]]
    earlier: Callable[[str, Run], Awaitable[None]]
    limits: Limits = field(default_factory=Limits)
    serverless: Serverless = field(default_factory=Serverless)


class Subject:
    """One run that is followed.

    Args:
        session: The session of its output.
        run: The run, as its record has it.
        parts: What followers share.
        life: The epoch of the session; None for the one that it has when the run begins to be followed.
    """

    def __init__(self, session: str, run: Run, parts: Following, life: str | None = None) -> None:
        self.session = session
        self.parts = parts
        self.teller = Teller(session, run.run, parts.accept, life)
        self.copy = StreamCopy(run, self.teller, parts.accept, parts.runs)

    @property
    def run(self) -> Run:
        """The run as it stands."""
        return self.copy.run

    @property
    def connection(self) -> Connection:
        """Temporal, in the run's namespace."""
        namespaces, namespace = self.parts.namespaces, self.run.namespace
        return namespaces[namespace] if namespace else namespaces.main

    async def append(self, publisher: str, *reports: Report) -> None:
        """Append reports under a publisher that appends nothing else; the log keeps one copy."""
        events = [
            compose(report.topic, b"{}", time=timestamp())  # it belongs to no run
            if report is SETTLED
            else self.teller.event(report.topic, report.data, key=report.key)
            for report in reports
        ]
        await self.teller.tell(publisher, *events)

    async def abandon(self) -> None:
        """Refuse what is left of the run's streams from now on.

        A gateway that was stopped may have it in its hands, and would append it after the later run's first event.
        """
        run = self.run
        attempts = {f"stream:{unread.stream}": unread.stream_attempt for unread in run.unread}
        attempts |= {f"stream:{run.stream}": run.stream_attempt, f"drained:{run.run}": 1}
        for publisher, attempt in attempts.items():
            refused = Publication(publisher, attempt + 1, run=run.run)
            with suppress(SessionClosedError, AttemptFencedError):
                await self.parts.accept.open_attempt(self.session, refused, epoch=self.teller.epoch)

    async def explain(self, failure: Any) -> dict[str, Any]:
        """Return a failure in the run in its reported form."""
        return await describe_failure(self.connection.converter_of(self.run.workflow_id), failure)
