"""Merges the stretches of events that retention has removed.

Publishers that alternate make a row for nearly every append, so without a bound the rows would outnumber the kept events. Each
step of trimming visits some of the session's publishers in turn: the newest `REMEMBERED` stretches of each stay as they are,
and older ones whose events are gone become one rough row. It has their sequences and the number of their events, but not their
offsets; so a retry is still no second copy, and `$attempt.superseded` omits them.
"""

from __future__ import annotations

import sqlite3
from typing import Final

REMEMBERED: Final = 1_000
"""Stretches of a publisher's attempt that stay exact, whatever retention removes."""

_VISITED: Final = 5  # publishers a step of trimming
_MERGED: Final = 2_000  # rows a visit


class Stretches:
    """Merges the stretches of a store's publishers.

    Attributes:
        merged: The number of rows that merging has saved since this was set to 0.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.merged = 0
        self._visited: dict[int, str] = {}  # by session: the name of the publisher that was visited last

    def trimmed(self, session: int, first_offset: int) -> None:
        """Visit the session's next publishers; events below `first_offset` are gone."""
        publishers = self._connection.execute(
            "SELECT id, name FROM publishers WHERE session = ? AND name > ? ORDER BY name LIMIT ?",
            (session, self._visited.pop(session, ""), _VISITED),
        ).fetchall()
        for publisher, _ in publishers:
            self._merge_publications(publisher, first_offset)
            self._merge_kept(publisher, first_offset)
        if len(publishers) == _VISITED:
            self._visited[session] = publishers[-1][1]

    def _merge_publications(self, publisher: int, first_offset: int) -> None:
        rows = self._connection.execute(
            "SELECT first_sequence, next_sequence, first_offset, next_offset FROM publications WHERE publisher = ?1"
            " AND first_sequence <= (SELECT first_sequence FROM publications WHERE publisher = ?1"
            " ORDER BY first_sequence DESC LIMIT 1 OFFSET ?2) AND next_offset <= ?3 ORDER BY first_sequence LIMIT ?4",
            (publisher, REMEMBERED, first_offset, _MERGED),
        ).fetchall()
        if len(rows) < 2:
            return
        self.merged += len(rows) - 1
        count, after = sum(row[3] - row[2] for row in rows), rows[-1][3]
        self._connection.execute(
            "DELETE FROM publications WHERE publisher = ? AND first_sequence <= ?", (publisher, rows[-1][0])
        )
        self._connection.execute(
            "INSERT INTO publications VALUES (?, ?, ?, ?, ?, 1)",
            (publisher, rows[0][0], rows[-1][1], after - count, after),
        )

    def _merge_kept(self, publisher: int, first_offset: int) -> None:
        rows = self._connection.execute(
            "SELECT first_offset, next_offset FROM kept WHERE publisher = ?1"
            " AND first_offset <= (SELECT first_offset FROM kept WHERE publisher = ?1"
            " ORDER BY first_offset DESC LIMIT 1 OFFSET ?2) AND next_offset <= ?3 ORDER BY first_offset LIMIT ?4",
            (publisher, REMEMBERED, first_offset, _MERGED),
        ).fetchall()
        if len(rows) < 2:
            return
        self.merged += len(rows) - 1
        count, after = sum(row[1] - row[0] for row in rows), rows[-1][1]
        self._connection.execute("DELETE FROM kept WHERE publisher = ? AND first_offset <= ?", (publisher, rows[-1][0]))
        self._connection.execute("INSERT INTO kept VALUES (?, ?, ?, 1)", (publisher, after - count, after))
