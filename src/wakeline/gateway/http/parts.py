"""The parts of the gateway that the routes call."""

from __future__ import annotations

from dataclasses import dataclass, field

from wakeline.gateway.access import Auth, Connections, Guard, Limits, Tickets
from wakeline.gateway.delivery import Accept, Compacts, Hub
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.following import Followers, Namespaces
from wakeline.gateway.http.lasting import Lasting
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import Archive, Arrivals, Deletions, Keeper, Runs
from wakeline.gateway.settings import Settings


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
    upstream: Followers | None = None
    temporal: Namespaces | None = None
