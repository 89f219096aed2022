"""Counts each owner's publishers in a session, which are limited."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Final

from wakeline.gateway.log.owners import Owner

_MOST_SESSIONS: Final = 10_000


class Owned:
    """The number of publishers of each owner, by session.

    A session is counted once, and callers then update its counts. They are cached by epoch, apart from the rest of a session's
    cache, so that neither retention nor a change of its settings leads to another count of a large session.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sessions: dict[str, Counter[str]] = {}

    def of(self, session: int, epoch: str) -> Counter[str]:
        """Return the number of publishers of each owner in a session, by the owner's name."""
        owned = self._sessions.get(epoch)
        if owned is None:
            owned = Counter()
            query = "SELECT owner, count(*) FROM publishers WHERE session = ? AND owner IS NOT NULL GROUP BY owner"
            for text, count in self._connection.execute(query, (session,)):
                owner = Owner.parse(text)  # an owner has one text for each set of topics
                assert owner is not None
                owned[owner.name] += count
            if len(self._sessions) >= _MOST_SESSIONS:
                self._sessions.clear()
            self._sessions[epoch] = owned
        return owned

    def forget(self) -> None:
        """Drop all counts: the transaction was rolled back."""
        self._sessions.clear()
