"""The log: sessions with their events, and small records, kept by an engine.

It exports the ports that the rest of the gateway uses and the values that pass through them; `engines/` implements them.
Every room but `runtime` may import it, and only `app` may import an engine. Open `ports.py` first, then `plan.py`: what an
append becomes.
"""

from __future__ import annotations

from wakeline.gateway.log.names import new_epoch
from wakeline.gateway.log.owners import CLAIM, Owner, matches
from wakeline.gateway.log.plan import MAX_STEP
from wakeline.gateway.log.ports import (
    DRAFT,
    PAGE_BYTES,
    Append,
    Appended,
    Change,
    Engine,
    Opened,
    Page,
    Position,
    Publication,
    Record,
    SessionState,
)

__all__ = [
    "CLAIM",
    "DRAFT",
    "MAX_STEP",
    "PAGE_BYTES",
    "Append",
    "Appended",
    "Change",
    "Engine",
    "Opened",
    "Owner",
    "Page",
    "Position",
    "Publication",
    "Record",
    "SessionState",
    "matches",
    "new_epoch",
]
