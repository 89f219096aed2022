"""The gateway's metrics, which `docs/reference/metrics.md` lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """One gateway's metrics, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        self.events = counter("wakeline_events", "Events made durable.")
        histogram = partial(Histogram, registry=self.registry, buckets=_SECONDS)
        self.append_seconds = histogram(
            "wakeline_append_seconds", "Seconds from accepting a batch to its being durable."
        )
        self.delivery_seconds = histogram(
            "wakeline_delivery_seconds",
            "Seconds from accepting an event to its being handed to the socket of the last live device.",
        )
        self.deliveries = counter("wakeline_deliveries", "Events written to live devices, counted for each device.")
        self.refused = counter("wakeline_errors", "Requests answered with an error, by its code.", ["code"])
        self.connections = counter("wakeline_connections", "Devices that connected.")
        self.open = gauge("wakeline_connections_open", "Connections that are open now.")
        self.cut = counter(
            "wakeline_connections_cut",
            "Connections refused because too many were open, or cut because a request did not come in time.",
            ["reason"],
        )
        self.live = gauge("wakeline_devices_live", "Devices that are live now.")
        self.catching_up = gauge("wakeline_devices_catching_up", "Devices that read the log now, and are not live.")
        self.shards = gauge("wakeline_shards_owned", "Shards of background work that this gateway owns, of 16.")
        self.present = gauge("wakeline_devices_connected", "Devices that said who they are and are connected now.")
        self.devices_added = counter("wakeline_devices_added", "Devices that became known in a session.")
        self.devices_forgotten = counter("wakeline_devices_forgotten", "Devices forgotten because there were too many.")
        self.publishers_added = counter("wakeline_publishers_added", "Publishers that were new in a session.")
        self.merged = counter(
            "wakeline_stretches_merged",
            "Stretches of publishers whose places were forgotten, of events that retention removed.",
        )
        self.trimmed = counter("wakeline_events_trimmed", "Events removed by retention.")
        self.deleted = counter("wakeline_sessions_deleted", "Sessions deleted.")
        self.expired = counter("wakeline_sessions_expired", "Sessions deleted because their time was over.")
        self.erasure = gauge(
            "wakeline_erasure_pending_seconds",
            "Seconds since the oldest deletion that is not out of the store's files yet.",
        )
        self.wal = gauge(
            "wakeline_wal_bytes",
            "Bytes of the store's write-ahead log, which grows while a program keeps reading the file.",
        )
        self.notifications = counter(
            "wakeline_notifications", "Attempts to send a notification, and ends without one.", ["channel", "outcome"]
        )
        self.channels_disabled = gauge("wakeline_channel_disabled", "1 while a channel is disabled.", ["channel"])
        self.subscriptions_removed = counter(
            "wakeline_push_subscriptions_removed", "Push subscriptions that push services no longer accept.", ["reason"]
        )
        self.following = gauge("wakeline_runs_followed", "Workflow runs followed now.")
        self.closely = gauge("wakeline_runs_watched_closely", "Workflow runs whose history is followed now.")
        self.temporal = gauge("wakeline_temporal_up", "1 while Temporal answers.", ["namespace"])
        self.inputs = counter("wakeline_inputs", "Inputs that came to an outcome.", ["kind", "outcome"])
        self.inputs_pending = gauge("wakeline_inputs_pending", "Inputs without an outcome that this gateway keeps.")
        self.inputs_pending_bytes = gauge("wakeline_inputs_pending_bytes", "Bytes of their arguments.")
        self.input_requests = counter("wakeline_input_requests", "Requests for input that were closed.", ["outcome"])
        self.calls = counter("wakeline_temporal_calls", "Calls made to Temporal.", ["call", "outcome"])

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
