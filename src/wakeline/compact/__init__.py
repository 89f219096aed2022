"""The compact form of a session: what it is now, in as few events as say it. Pure: no engine, no connection, no clock.

    operations.py  what the events of a message do to its value
    plain.py       the events that stand for themselves
    entries.py     messages and keyed state, by who wrote them
    fold.py        Fold: the state of a session, event by event

PROTOCOL.md §4 tells what it looks like. The gateway stores it, and clients keep it up to date.
"""

from wakeline.compact.fold import Fold

__all__ = ["Fold"]
