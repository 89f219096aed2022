"""Callbacks that count the stored state that callers cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(_: int) -> None:
    """Count nothing."""


@dataclass(slots=True)
class Counts:
    """Callbacks that receive the number of new items after they became durable, in any thread.

    Attributes:
        events: Events that this process appended; called by engines that gateways share, whose feed has those of others, too.
        publishers: Publishers that appended or opened for the first time in a session.
        merged: Rows of publishers' stretches that were merged into an earlier one.
    """

    events: Callable[[int], object] = _ignore
    publishers: Callable[[int], object] = _ignore
    merged: Callable[[int], object] = _ignore
