"""What is left to chance: the same few courses in every run of the tests, others for as long as is wanted in a soak."""

from __future__ import annotations

import os
import random

# `make faults` sets it.
SOAK = int(os.environ.get("WAKELINE_SOAK", "1"))

# Seconds between two calls of each publisher and device under load: a run of the tests tries the faults, a soak the load, too.
BETWEEN = 0.05 if SOAK == 1 else 0.0


# Another number is another course. In a soak a failure prints it. The processes of one run of the tests share it by a variable of
# their own, because a gateway warns of variables that it does not know.
_FRESH = os.environ.setdefault("TESTS_SEED", "0" if SOAK == 1 else str(random.SystemRandom().randrange(1_000_000)))
SEED = int(os.environ.get("WAKELINE_SEED", _FRESH))


def dice(number: int) -> random.Random:
    """The course of one thing that is left to chance: another one for each seed."""
    return random.Random(number + 1_000 * SEED)


def times(few: int, each: int) -> int:
    """A few times, or in a soak so many times for each of `WAKELINE_SOAK`."""
    return few if SOAK == 1 else each * SOAK
