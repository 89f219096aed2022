"""How long to wait before something is tried again."""

from __future__ import annotations

import random


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: from 0.05 s, doubled up to 2 s, less up to a half by chance."""
    longest: float = min(2.0, 0.05 * 2 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)
