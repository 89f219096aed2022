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
_COLUMNS: Final = {
    "publications": ("first_sequence", "next_sequence", "first_offset", "next_offset"),
    "kept": ("first_offset", "next_offset"),
}


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
            for table in _COLUMNS:
                self._merge(table, publisher, first_offset)
        if len(publishers) == _VISITED:
            self._visited[session] = publishers[-1][1]

    def _merge(self, table: str, publisher: int, first_offset: int) -> None:
        columns, key = _COLUMNS[table], _COLUMNS[table][0]
        rows = self._connection.execute(
            f"SELECT {', '.join(columns)} FROM {table} WHERE publisher = ?1 AND next_offset <= ?3 AND {key} <="
            f" (SELECT {key} FROM {table} WHERE publisher = ?1 ORDER BY {key} DESC LIMIT 1 OFFSET ?2)"
            f" ORDER BY {key} LIMIT ?4",
            (publisher, REMEMBERED, first_offset, _MERGED),
        ).fetchall()
        if len(rows) < 2:
            return
        self.merged += len(rows) - 1
        count, after = sum(row[-1] - row[-2] for row in rows), rows[-1][-1]
        sequences = (rows[0][0], rows[-1][1]) if table == "publications" else ()
        merged = (publisher, *sequences, after - count, after, 1)
        self._connection.execute(f"DELETE FROM {table} WHERE publisher = ? AND {key} <= ?", (publisher, rows[-1][0]))
        self._connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(merged))})", merged)
