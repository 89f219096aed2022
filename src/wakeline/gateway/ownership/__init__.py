"""Ownership: which gateway does which background work, decided by leases.

Every room above `log` may import it. Open `ownership.py`; `wakeups.py` sends hints to the owner at another gateway.
"""

from __future__ import annotations

from wakeline.gateway.ownership.divided import Share, survey
from wakeline.gateway.ownership.ownership import Ownership
