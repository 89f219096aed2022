"""The compact forms of sessions: folded as events arrive, and stored in blocks.

blocks.py    encodes a fold as bytes
store.py     stores the blocks of one life of a session
session.py   folds one session's log as it grows
compacts.py  schedules the folds of all sessions and bounds their memory
snapshot.py  a compact form at one offset, read page by page
"""

from wakeline.gateway.delivery.compact.compacts import Compacts
from wakeline.gateway.delivery.compact.snapshot import Snapshot
