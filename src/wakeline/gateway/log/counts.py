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
        publishers: Publishers that appended or opened for the first time in a session.
        merged: Rows of publishers' stretches that were merged into an earlier one.
    """

    publishers: Callable[[int], object] = _ignore
    merged: Callable[[int], object] = _ignore
