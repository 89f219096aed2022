"""The retry schedule, a function without a clock."""

from __future__ import annotations

from typing import Final

SCHEDULE: Final = (0.0, 5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds before each attempt, counted from the decision and then from the failure before."""

LONGEST_WAIT: Final = 86_400.0
"""The longest wait that a receiver can request with `Retry-After`."""

_JITTER: Final = 0.2


def pause(failures: int, draw: float, *, wanted: float = 0.0) -> float | None:
    """Return the seconds from a failed attempt to the next one; None if no attempt is left.

    Args:
        failures: The attempts that have failed, this one included.
        draw: A random number from 0 to 1: a pause is up to a fifth longer.
        wanted: The seconds that the receiver requested. Default: none.
    """
    if failures >= len(SCHEDULE):
        return None
    return max(SCHEDULE[failures] * (1 + _JITTER * draw), min(wanted, LONGEST_WAIT))
