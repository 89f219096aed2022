"""The parts that keep and deliver sessions, as `app` connects them."""

from __future__ import annotations

from dataclasses import dataclass

from wakeline.gateway.delivery import Accept, Compacts, Hub
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications import Outbox
from wakeline.gateway.sessions.deletion import Deletions
from wakeline.gateway.sessions.retention import Keeper
from wakeline.gateway.sessions.runs import Runs
from wakeline.gateway.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Core:
    """The parts that every room above builds on."""

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
    outbox: Outbox
