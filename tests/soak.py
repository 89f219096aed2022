"""How often what is left to chance is tried: a little in every run of the tests, for as long as is wanted in a soak."""

from __future__ import annotations

import os

# `make faults` sets it.
SOAK = int(os.environ.get("WAKELINE_SOAK", "1"))


def times(few: int, each: int) -> int:
    """A few times, or in a soak so many times for each of `WAKELINE_SOAK`."""
    return few if SOAK == 1 else each * SOAK
