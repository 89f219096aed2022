"""Counts what is written to live devices, and the time since its acceptance."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from time import time
from typing import Final

_HALF_A_MILLISECOND: Final = 0.0005
"""By so much the time of an event, which has whole milliseconds, is too early on average."""


def _ignore(_: float) -> None:
    """Count nothing."""


class Written:
    """Counts what is written, and reports it once for all sessions that are written together.

    A report costs as much as writing to a device, and many sessions have one device each.

    Attributes:
        events: Receives the number of events that were written, counted once for each device.
        seconds: Receives the seconds from the acceptance of the oldest event to its being handed to the last device's
            socket.
    """

    def __init__(self) -> None:
        self.events: Callable[[int], object] = _ignore
        self.seconds: Callable[[float], object] = _ignore
        self._count = 0
        self._oldest = b""

    def add(self, count: int, first: bytes) -> None:
        """Count events that were written to all devices of a session.

        Args:
            count: The number of events, counted once for each device.
            first: The body of the first of them.
        """
        self._count += count
        accepted = _time_in(first)
        if not self._oldest or accepted < self._oldest:
            self._oldest = accepted

    def report(self) -> None:
        """Report what was counted since the last report, if anything was."""
        if not self._count:
            return
        count, oldest = self._count, self._oldest
        self._count, self._oldest = 0, b""
        self.events(count)
        accepted = _parsed(oldest)
        if accepted is not None:
            self.seconds(max(0.0, time() - accepted - _HALF_A_MILLISECOND))


def _time_in(body: bytes) -> bytes:
    start = body.rfind(b'"time":"') + 8  # after `data`, which may have members of this name
    return body[start : start + 24]


def _parsed(text: bytes) -> float | None:
    try:
        return datetime.fromisoformat(text.decode()).timestamp()
    except ValueError:
        return None
