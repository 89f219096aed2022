"""Callbacks that count what is written to live devices, and the time of its acceptance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


def _ignore(_: float) -> None:
    """Count nothing."""


@dataclass(slots=True)
class Written:
    """Callbacks that are called once for a fan-out, not for each device.

    Attributes:
        events: Receives the number of events that were written, counted once for each device.
        seconds: Receives the seconds from the acceptance of the oldest event to its being handed to the last device's
            socket.
    """

    events: Callable[[int], object] = _ignore
    seconds: Callable[[float], object] = _ignore


def accepted_at(body: bytes) -> float | None:
    """Return the `time` in an event's body as Unix time; None if it has none."""
    start = body.rfind(b'"time":"') + 8  # after `data`, which may have members of this name
    try:
        return datetime.fromisoformat(body[start : start + 24].decode()).timestamp()
    except ValueError:
        return None
