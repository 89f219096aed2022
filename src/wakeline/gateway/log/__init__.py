"""The log: sessions with their events, and small records, stored by an engine.

It exports the ports that the rest of the gateway uses, and their values; `engines/` implements them. Every room but `runtime`
may import it, and only `stores` may import an engine. Open `ports.py` first, then `plan.py`: the decision of an append.
"""

from __future__ import annotations

from wakeline.gateway.log.feed import Commit, Feed, Listener
from wakeline.gateway.log.owners import CLAIM, Owner, matches
from wakeline.gateway.log.plan import MAX_STEP
from wakeline.gateway.log.portable import Portable, StoredPublisher
from wakeline.gateway.log.ports import Engine, Log, Records
from wakeline.gateway.log.store import Restorable
from wakeline.gateway.log.values import (
    MAX_RECORD_BYTES,
    PAGE_BYTES,
    Append,
    Appended,
    Change,
    NewSession,
    Opened,
    Outcome,
    Page,
    Position,
    Publication,
    Published,
    Record,
    SessionState,
)
