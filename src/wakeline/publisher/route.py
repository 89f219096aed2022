"""The route of one publisher's events to the session, from the publisher's options."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from wakeline.durations import seconds_of
from wakeline.publisher.connection import Connection
from wakeline.publisher.detour import Detour
from wakeline.publisher.errors import PublishReports
from wakeline.publisher.fallback import Fallback
from wakeline.publisher.frames import Identity
from wakeline.publisher.options import OnUnavailable
from wakeline.publisher.spool import Spool
from wakeline.publisher.spooling import Spooling

if TYPE_CHECKING:
    from temporalio.client import Client


@dataclass(frozen=True)
class Route:
    """How events are batched and retried, and which detour they take while the gateway is away.

    `SessionPublisher` documents each option.
    """

    linger: timedelta
    max_batch: int
    max_retry_duration: timedelta
    on_unavailable: OnUnavailable
    spool: str | PathLike[str] | None
    temporal_client: Client | None

    @property
    def is_patient(self) -> bool:
        """Whether events are accepted while the gateway is away."""
        return self.on_unavailable != "error"

    @property
    def retry_seconds(self) -> float:
        """Seconds after which events that cannot be delivered are abandoned."""
        return seconds_of(self.max_retry_duration, "max_retry_duration")

    @property
    def codec_seconds(self) -> float:
        """Seconds for which a payload codec that fails is retried."""
        return self.retry_seconds if self.is_patient else 0.0

    def detour(
        self, identity: Identity, connection: Connection, reports: PublishReports, *, coded: bool
    ) -> Detour | None:
        """Return the detour of a publisher; None if its events wait for the gateway.

        Args:
            identity: The publisher.
            connection: The connection to the gateway.
            reports: Reports undelivered events.
            coded: Whether the publisher's codec encodes its payloads.
        """
        if self.on_unavailable == "spool":
            assert self.spool is not None
            return Spooling(Spool.at(Path(self.spool)), identity, connection, reports)
        if self.on_unavailable == "workflow":
            assert self.temporal_client is not None
            workflow_id = identity.workflow or identity.session
            return Fallback(self.temporal_client, workflow_id, identity, self.max_retry_duration, coded=coded)
        return None
