"""The compact form of a session: its current content, in as few events as possible.

    operations.py  how the events of a message change its value
    plain.py       events that are neither pieces of a message nor keyed
    entries.py     messages and keyed state, by writer
    fold.py        Fold: the state of a session, event by event

It is pure: it uses no engine, no connection and no clock. The gateway stores the compact form, and clients keep it up
to date; PROTOCOL.md §4 defines it. Open `fold.py` first.
"""

from wakeline.compact.fold import Fold

__all__ = ["Fold"]
