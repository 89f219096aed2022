"""Callbacks that count the stored state that callers cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(_: int) -> None:
    """Count nothing."""


@dataclass(slots=True)
class Counts:
    """Called with how many more there are, after they were made durable, from any thread.

    Attributes:
        publishers: Publishers that appended or opened for the first time in a session.
        merged: Rows of publishers' stretches that were put together with an earlier one.
    """

    publishers: Callable[[int], object] = _ignore
    merged: Callable[[int], object] = _ignore
