"""Ownership: which gateway does which background work, decided by leases.

Every room above `log` may import it. Open `leases.py`.
"""

from __future__ import annotations

from wakeline.gateway.ownership.leases import Leases

__all__ = [
    "Leases",
]
