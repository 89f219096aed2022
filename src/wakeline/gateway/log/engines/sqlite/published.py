"""Finds the publication of an event by its offset.

No index has the offsets of publications, because every append would have to write it. But within an attempt offsets grow with
sequences, and those have an index: a binary search by sequence finds the only stretch that may contain the offset. It
searches all publishers whose stretches begin at or before the offset and end after it; decision 0043 has the cost.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from wakeline.gateway.log.engines.sqlite.queries import find
from wakeline.gateway.log.values import Published

# `low` is a sequence whose stretch begins at or before the offset, `high` one whose stretch begins after it, or the end.
_SEARCH: Final = """
    WITH RECURSIVE search (publisher, low, high) AS (
        SELECT publishers.id, 0, last.next_sequence FROM publishers JOIN publications last ON last.publisher = publishers.id
            AND last.first_sequence = (SELECT max(first_sequence) FROM publications WHERE publisher = publishers.id)
        WHERE session = :session AND last.next_offset > :offset AND :offset >= (
            SELECT first_offset FROM publications WHERE publisher = publishers.id ORDER BY first_sequence LIMIT 1
        )
        UNION ALL
        SELECT search.publisher, iif(first_offset <= :offset, (low + high) / 2, low),
            iif(first_offset <= :offset, high, (low + high) / 2)
        FROM search JOIN publications middle ON middle.publisher = search.publisher AND first_sequence = (
            SELECT max(first_sequence) FROM publications
            WHERE publisher = search.publisher AND first_sequence <= (low + high) / 2
        )
        WHERE high - low > 1
    )
    SELECT name, attempt, min(first_sequence + :offset - first_offset, next_sequence - 1)
    FROM search JOIN publishers ON id = search.publisher JOIN publications found ON found.publisher = id
        AND first_sequence = (SELECT max(first_sequence) FROM publications WHERE publisher = id AND first_sequence <= low)
    WHERE high - low <= 1 AND first_offset <= :offset AND next_offset > :offset AND NOT rough
    LIMIT 1
"""

_KEPT: Final = """
    SELECT name FROM publishers WHERE session = :session AND :offset < (
        SELECT next_offset FROM kept WHERE publisher = id AND first_offset <= :offset AND NOT rough
        ORDER BY first_offset DESC LIMIT 1
    )
    LIMIT 1
"""


def published(connection: sqlite3.Connection, session: str, offset: int, epoch: str) -> Published | None:
    """Return an event's publication; see `Index.published`."""
    session_id, _ = find(connection, session, epoch)
    given = {"session": session_id, "offset": offset}
    row = connection.execute(_SEARCH, given).fetchone() or connection.execute(_KEPT, given).fetchone()
    return None if row is None else Published(*row)
