"""What a measurement yields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """What one stretch of load showed."""

    seconds: float
    published: int
    delivered: int
    missing: int
    duplicates: int
    breaks: int
    p50: float
    p99: float
    slowest: float
    writes: int
    server_cpu: float
    beside_cpu: float
    generator_busy: float
    others_cpu: float  # what everything else on this machine used

    @property
    def per_cpu_second(self) -> float:
        return self.delivered / self.server_cpu if self.server_cpu else 0.0

    @property
    def event_cpu(self) -> float:
        """CPU seconds of the server for one event, deliveries included."""
        return self.server_cpu / self.published

    @property
    def server_load(self) -> float:
        return self.server_cpu / self.seconds

    @property
    def writes_each(self) -> float:
        return self.writes / self.delivered if self.delivered else 0.0
