"""The compact forms of sessions: folded while events are published, stored in blocks, and given to those who join.

blocks.py    a fold as bytes
store.py     the blocks of one life of a session
session.py   one session's fold, kept up with its log
compacts.py  all of them: who is to be folded next, and who may be forgotten
snapshot.py  a compact form as it is read, page by page
"""

from wakeline.gateway.delivery.compact.compacts import Compacts
from wakeline.gateway.delivery.compact.snapshot import Snapshot

__all__ = ["Compacts", "Snapshot"]
