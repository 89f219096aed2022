"""Merges the stretches of events that retention has removed, as the SQLite engine does.

Publishers that alternate make a row for nearly every append, so without a bound the rows would outnumber the kept events. Each
step of trimming visits some of the session's publishers in turn: the newest `REMEMBERED` stretches of each stay as they are,
and older ones whose events are gone become one rough row. It has their sequences and the number of their events, but not their
offsets; so a retry is still no second copy, and `$attempt.superseded` omits them.
"""

from __future__ import annotations

from typing import Final

from wakeline.gateway.log.engines.postgres.target import Connection

REMEMBERED: Final = 1_000
"""Stretches of a publisher's attempt that stay exact, whatever retention removes."""

_VISITED: Final = 5  # publishers a step of trimming
_MERGED: Final = 2_000  # rows a visit

_NEXT: Final = "SELECT id, name FROM wakeline.publishers WHERE session = $1 AND name > $2 ORDER BY name LIMIT $3"

_MERGE: Final = """
    WITH old AS (
        SELECT * FROM wakeline.publications WHERE publisher = $1 AND next_offset <= $3
        AND first_sequence <= (
            SELECT first_sequence FROM wakeline.publications WHERE publisher = $1
            ORDER BY first_sequence DESC LIMIT 1 OFFSET $2
        )
        ORDER BY first_sequence LIMIT $4
    ),
    one AS (
        SELECT min(first_sequence) AS first_sequence, max(next_sequence) AS next_sequence,
            max(next_offset) - sum(next_offset - first_offset)::bigint AS first_offset, max(next_offset) AS next_offset
        FROM old HAVING count(*) > 1
    ),
    removed AS (
        DELETE FROM wakeline.publications p USING one
        WHERE p.publisher = $1 AND p.first_sequence > one.first_sequence AND p.first_sequence < one.next_sequence
            AND p.next_sequence <= one.next_sequence
        RETURNING 1
    ),
    changed AS (
        UPDATE wakeline.publications p SET next_sequence = one.next_sequence, first_offset = one.first_offset,
            next_offset = one.next_offset, rough = true
        FROM one WHERE p.publisher = $1 AND p.first_sequence = one.first_sequence
    )
    SELECT count(*) FROM removed
"""

_MERGE_KEPT: Final = """
    WITH old AS (
        SELECT * FROM wakeline.kept WHERE publisher = $1 AND next_offset <= $3
        AND first_offset <= (
            SELECT first_offset FROM wakeline.kept WHERE publisher = $1 ORDER BY first_offset DESC LIMIT 1 OFFSET $2
        )
        ORDER BY first_offset LIMIT $4
    ),
    removed AS (
        DELETE FROM wakeline.kept k USING old
        WHERE k.publisher = $1 AND k.first_offset = old.first_offset AND (SELECT count(*) FROM old) > 1
        RETURNING k.first_offset, k.next_offset
    )
    SELECT count(*), (max(next_offset) - sum(next_offset - first_offset))::bigint, max(next_offset) FROM removed
"""

_KEEP: Final = "INSERT INTO wakeline.kept VALUES ($1, $2, $3, true)"


class Stretches:
    """Merges the stretches of a store's publishers."""

    def __init__(self) -> None:
        self._visited: dict[int, str] = {}  # by session: the name of the publisher that was visited last

    async def trimmed(self, connection: Connection, session: int, first_offset: int) -> int:
        """Visit the session's next publishers; events below `first_offset` are gone.

        Returns:
            The number of rows that merging has saved.
        """
        publishers = await connection.fetch(_NEXT, session, self._visited.pop(session, ""), _VISITED)
        saved = 0
        for publisher, _ in publishers:
            saved += int(await connection.fetchval(_MERGE, publisher, REMEMBERED, first_offset, _MERGED))
            row = await connection.fetchrow(_MERGE_KEPT, publisher, REMEMBERED, first_offset, _MERGED)
            if row is not None and row[0]:
                await connection.execute(_KEEP, publisher, row[1], row[2])
                saved += row[0] - 1
        if len(publishers) == _VISITED:
            self._visited[session] = publishers[-1]["name"]
        return saved
