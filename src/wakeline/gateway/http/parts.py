"""The parts of the gateway that the routes call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wakeline.gateway.access import Auth, Connections, Guard, Limits, Tickets
from wakeline.gateway.delivery import Accept, Compacts, Hub
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.http.lasting import Lasting
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import Archive, Arrivals, Deletions, Followed, Keeper, Run, Runs
from wakeline.gateway.settings import Settings


class Upstream(Protocol):
    """The part that follows workflows, as the routes use it; absent without Temporal."""

    async def watch(self, session: str) -> None:
        """Ensure that the workflow with a session's name, if it exists, is followed for a reader."""
        ...

    async def register(
        self,
        workflow_id: str,
        session: str | None,
        *,
        namespace: str | None = None,
        result: bool = False,
        reaches: Callable[[str], bool] = ...,
        any_workflow: bool = True,
    ) -> tuple[str, Run]:
        """Follow a workflow into a session from now on.

        Args:
            workflow_id: The workflow.
            session: The session; None for the one that the workflow's memo names, or else the one of its own name.
            namespace: Its namespace; None for the gateway's own.
            result: Publish the workflow's result when it completes.
            reaches: Returns whether the caller reaches a session.
            any_workflow: The caller may register the workflow whichever session it names; otherwise only a workflow that
                names a session which the caller reaches.

        Returns:
            The session and the run that is followed.
        """
        ...

    def nudge(self, workflow_id: str, namespace: str | None) -> None:
        """Check a workflow for new events at once, if it is followed or its session has a reader.

        The call returns at once and never fails. Several nudges of one workflow have the effect of one.

        Args:
            workflow_id: The workflow.
            namespace: Its namespace; None for the gateway's own.
        """
        ...

    async def ended(self, workflows: Sequence[tuple[str, str | None]]) -> None:
        """Check these workflows at once; return when each has ended and its end is in its session.

        Args:
            workflows: Workflow Ids and namespaces; None for the gateway's own.
        """
        ...

    def published(
        self, session: str, workflow_id: str, namespace: str | None, *, run: str | None, manages: bool
    ) -> None:
        """Follow a workflow that a publisher of a session names, if that is allowed.

        It is allowed if the session has the workflow's name, if the workflow's memo `wakeline.session` names the session,
        or if `manages`. The call returns at once and continues in the background; errors are only logged.

        Args:
            session: The session.
            workflow_id: The workflow.
            namespace: Its namespace; None for the gateway's own.
            run: The run that the publisher names. If it is no Temporal run of the workflow, the latest run is meant.
            manages: Whether the publisher's token may register this workflow in the session.
        """
        ...

    def followed(self, session: str) -> dict[str, Followed]:
        """Return those of a session's runs that this gateway follows, by name."""
        ...


class Temporal(Protocol):
    """The connections to Temporal, as the routes use them."""

    def health(self) -> str:
        """Return `ok` or the problem; of several namespaces, the worst state."""
        ...

    def healths(self) -> dict[str, str]:
        """Return the state of each namespace."""
        ...


@dataclass(frozen=True, kw_only=True)
class Core:
    """The parts that keep and deliver sessions."""

    settings: Settings
    engine: Engine
    metrics: Metrics
    runs: Runs
    presence: Presence
    positions: Positions
    compacts: Compacts
    hub: Hub
    accept: Accept
    deletions: Deletions
    keeper: Keeper


@dataclass(frozen=True, kw_only=True)
class Parts(Core):
    """The gateway's parts, as `app` connects them."""

    arrivals: Arrivals
    auth: Auth
    tickets: Tickets
    limits: Limits
    guard: Guard
    connections: Connections
    archive: Archive
    lasting: Lasting = field(default_factory=Lasting)
    upstream: Upstream | None = None
    temporal: Temporal | None = None
