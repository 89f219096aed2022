"""What the routes call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wakeline.gateway.access import Auth, Connections, Guard, Limits, Tickets
from wakeline.gateway.delivery import Accept, Compacts, Hub
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import Archive, Arrivals, Deletions, Followed, Keeper, Run, Runs
from wakeline.gateway.settings import Settings


class Upstream(Protocol):
    """What the routes ask of the part that follows workflows; there is none without Temporal."""

    async def watch(self, session: str) -> None:
        """A device is here: see that the workflow of this name, if there is one, is followed."""
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
        """Follow a workflow into a session from now on; tells which.

        Args:
            workflow_id: The workflow.
            session: The session; None: the one that the workflow itself names, or the one of its own name.
            namespace: Its namespace; None for the gateway's own.
            result: Tell what it completes with.
            reaches: Whether the caller reaches a session.
            any_workflow: The caller may register the workflow whichever session it names; otherwise only a workflow that
                names a session which the caller reaches.
        """
        ...

    def nudge(self, workflow_id: str, namespace: str | None) -> None:
        """A workflow may have something new: look at once, if it is followed or has a device.

        It returns at once, and never fails; many for one workflow are as good as one.

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
        """A publisher of a session names this workflow: follow it into the session, if that may be.

        It may if the session has the workflow's name, if the workflow's memo `wakeline.session` names the session, or if
        `manages`. It returns at once, and goes on in the background; errors are only logged.

        Args:
            session: The session.
            workflow_id: The workflow.
            namespace: Its namespace; None for the gateway's own.
            run: The run that it names; if that is no Temporal run of the workflow, it is the latest.
            manages: The publisher's token may register this workflow in the session.
        """
        ...

    def followed(self, session: str) -> dict[str, Followed]:
        """Those of a session's runs that are followed here, by name."""
        ...


class Temporal(Protocol):
    """What the routes ask of the connections to Temporal."""

    def health(self) -> str:
        """`ok`, or what is wrong; of several namespaces, the worst."""
        ...

    def healths(self) -> dict[str, str]:
        """The same of each namespace."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The gateway's parts, as `app` has joined them."""

    settings: Settings
    engine: Engine
    accept: Accept
    arrivals: Arrivals
    hub: Hub
    runs: Runs
    positions: Positions
    presence: Presence
    metrics: Metrics
    auth: Auth
    tickets: Tickets
    limits: Limits
    guard: Guard
    connections: Connections
    deletions: Deletions
    archive: Archive
    keeper: Keeper
    compacts: Compacts
    upstream: Upstream | None = None
    temporal: Temporal | None = None
