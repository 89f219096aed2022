"""The log: sessions with their events, and small records, stored by an engine.

It exports the ports that the rest of the gateway uses, and their values; `engines/` implements them. Every room but `runtime`
may import it, and only `app` may import an engine. Open `ports.py` first, then `plan.py`: the decision of an append.
"""

from __future__ import annotations

from wakeline.gateway.log.feed import Commit, Feed, Listener
from wakeline.gateway.log.names import new_epoch
from wakeline.gateway.log.owners import CLAIM, Owner, matches
from wakeline.gateway.log.plan import MAX_STEP
from wakeline.gateway.log.ports import Catalog, Engine, Index, Log, Records
from wakeline.gateway.log.store import Restorable
from wakeline.gateway.log.values import (
    MAX_RECORD_BYTES,
    PAGE_BYTES,
    Append,
    Appended,
    Change,
    Opened,
    Outcome,
    Page,
    Position,
    Publication,
    Record,
    SessionState,
)

__all__ = [
    "CLAIM",
    "MAX_RECORD_BYTES",
    "MAX_STEP",
    "PAGE_BYTES",
    "Append",
    "Appended",
    "Catalog",
    "Change",
    "Commit",
    "Engine",
    "Feed",
    "Index",
    "Listener",
    "Log",
    "Opened",
    "Outcome",
    "Owner",
    "Page",
    "Position",
    "Publication",
    "Record",
    "Records",
    "Restorable",
    "SessionState",
    "matches",
    "new_epoch",
]
