"""The gateway's metrics, which `docs/reference/metrics.md` lists."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest


class Metrics:
    """One gateway's metrics, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter("wakeline_events", "Events made durable.", registry=self.registry)
        self.append_seconds = Histogram(
            "wakeline_append_seconds",
            "Seconds from accepting a batch to its being durable.",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )
        self.refused = Counter(
            "wakeline_errors", "Requests answered with an error, by its code.", ["code"], registry=self.registry
        )
        self.connections = Counter("wakeline_connections", "Devices that connected.", registry=self.registry)
        self.open = Gauge("wakeline_connections_open", "Connections that are open now.", registry=self.registry)
        self.cut = Counter(
            "wakeline_connections_cut",
            "Connections refused because too many were open, or cut because a request did not come in time.",
            ["reason"],
            registry=self.registry,
        )
        self.live = Gauge("wakeline_devices_live", "Devices that are live now.", registry=self.registry)
        self.present = Gauge(
            "wakeline_devices_connected",
            "Devices that said who they are and are connected now.",
            registry=self.registry,
        )
        self.devices_added = Counter(
            "wakeline_devices_added", "Devices that became known in a session.", registry=self.registry
        )
        self.devices_forgotten = Counter(
            "wakeline_devices_forgotten", "Devices forgotten because there were too many.", registry=self.registry
        )
        self.publishers_added = Counter(
            "wakeline_publishers_added", "Publishers that were new in a session.", registry=self.registry
        )
        self.merged = Counter(
            "wakeline_stretches_merged",
            "Stretches of publishers whose places were forgotten, of events that retention removed.",
            registry=self.registry,
        )
        self.trimmed = Counter("wakeline_events_trimmed", "Events removed by retention.", registry=self.registry)
        self.deleted = Counter("wakeline_sessions_deleted", "Sessions deleted.", registry=self.registry)
        self.expired = Counter(
            "wakeline_sessions_expired", "Sessions deleted because their time was over.", registry=self.registry
        )
        self.erasure = Gauge(
            "wakeline_erasure_pending_seconds",
            "Seconds since the oldest deletion that is not out of the store's files yet.",
            registry=self.registry,
        )
        self.wal = Gauge(
            "wakeline_wal_bytes",
            "Bytes of the store's write-ahead log, which grows while a program keeps reading the file.",
            registry=self.registry,
        )
        self.following = Gauge("wakeline_runs_followed", "Workflow runs followed now.", registry=self.registry)
        self.closely = Gauge(
            "wakeline_runs_watched_closely", "Workflow runs whose history is followed now.", registry=self.registry
        )
        self.temporal = Gauge(
            "wakeline_temporal_up", "1 while Temporal answers.", ["namespace"], registry=self.registry
        )
        self.calls = Counter(
            "wakeline_temporal_calls", "Calls made to Temporal.", ["call", "outcome"], registry=self.registry
        )

    def count_devices(self, added: int, forgotten: int) -> None:
        """Count devices that were stored for the first time, and devices forgotten for a limit."""
        self.devices_added.inc(added)
        self.devices_forgotten.inc(forgotten)

    def observe(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Call `value` for a gauge's value at each scrape."""
        gauge.set_function(value)

    def expose(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
