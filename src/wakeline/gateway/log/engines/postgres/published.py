"""Finds the publication of an event by its offset.

`engines/sqlite/published.py` explains the search.
"""

from __future__ import annotations

from typing import Final

from wakeline.gateway.log.engines.postgres.queries import found_row
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.values import Published

_PUBLISHED: Final = """
    WITH RECURSIVE live AS (
        SELECT id, epoch FROM wakeline.sessions WHERE name = $1 AND (epoch = $2 OR NOT draft)
    ), search (publisher, low, high) AS (
        SELECT p.id, 0::bigint, last.next_sequence
        FROM live JOIN wakeline.publishers p ON p.session = live.id, LATERAL (
            SELECT next_sequence, next_offset FROM wakeline.publications WHERE publisher = p.id
            ORDER BY first_sequence DESC LIMIT 1
        ) AS last
        WHERE last.next_offset > $3 AND $3 >= (
            SELECT first_offset FROM wakeline.publications WHERE publisher = p.id ORDER BY first_sequence LIMIT 1
        )
        UNION ALL
        SELECT publisher, CASE WHEN begins.at <= $3 THEN (low + high) / 2 ELSE low END,
            CASE WHEN begins.at <= $3 THEN high ELSE (low + high) / 2 END
        FROM search, LATERAL (
            SELECT first_offset AS at FROM wakeline.publications WHERE publisher = search.publisher
            AND first_sequence <= (low + high) / 2 ORDER BY first_sequence DESC LIMIT 1
        ) AS begins
        WHERE high - low > 1
    ), found AS (
        SELECT p.name, p.attempt, least(one.first_sequence + $3 - one.first_offset, one.next_sequence - 1) AS sequence
        FROM search JOIN wakeline.publishers p ON p.id = search.publisher, LATERAL (
            SELECT * FROM wakeline.publications WHERE publisher = p.id AND first_sequence <= low
            ORDER BY first_sequence DESC LIMIT 1
        ) AS one
        WHERE high - low <= 1 AND one.first_offset <= $3 AND one.next_offset > $3 AND NOT one.rough
        UNION ALL
        SELECT p.name, NULL, NULL
        FROM live JOIN wakeline.publishers p ON p.session = live.id, LATERAL (
            SELECT next_offset FROM wakeline.kept WHERE publisher = p.id AND first_offset <= $3 AND NOT rough
            ORDER BY first_offset DESC LIMIT 1
        ) AS one
        WHERE one.next_offset > $3
    )
    SELECT epoch, name, attempt, sequence FROM live LEFT JOIN found ON true ORDER BY attempt NULLS LAST LIMIT 1
"""


async def published(readers: Readers, session: str, offset: int, epoch: str) -> Published | None:
    """Return an event's publication; see `Index.published`."""
    row = found_row(await readers.fetch(_PUBLISHED, session, epoch, offset), session, epoch)
    return None if row[1] is None else Published(*row[1:])
