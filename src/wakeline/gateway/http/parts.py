"""What the routes call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wakeline.gateway.accept import Accept
from wakeline.gateway.archive import Archive
from wakeline.gateway.auth import Auth
from wakeline.gateway.compact import Compacts
from wakeline.gateway.connections import Connections
from wakeline.gateway.deletion import Deletions
from wakeline.gateway.guard import Guard
from wakeline.gateway.hub import Hub
from wakeline.gateway.limits import Limits
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.positions import Positions
from wakeline.gateway.presence import Presence
from wakeline.gateway.retention import Keeper
from wakeline.gateway.runs import Run, Runs
from wakeline.gateway.settings import Settings
from wakeline.gateway.tickets import Tickets


class Upstream(Protocol):
    """What the routes ask of the part that follows workflows; there is none without Temporal."""

    async def watch(self, session: str) -> None:
        """A device is here: see that the workflow of this name, if there is one, is followed."""
        ...

    async def register(self, workflow_id: str, session: str) -> Run:
        """Follow a workflow into a session from now on."""
        ...

    def followed(self, run: str) -> bool:
        """Whether a run is being followed here."""
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
