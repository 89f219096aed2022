"""Callbacks that count what is written to live devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(_: float) -> None:
    """Count nothing."""


@dataclass(slots=True)
class Written:
    """Callbacks that are called once for a fan-out, not for each device.

    Attributes:
        events: Receives the number of events that were written, counted once for each device.
        seconds: Receives the seconds from the events' being durable to their being written to the last device.
    """

    events: Callable[[int], object] = _ignore
    seconds: Callable[[float], object] = _ignore
