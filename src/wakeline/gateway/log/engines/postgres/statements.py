"""The statements of a transaction."""

from __future__ import annotations

from typing import Final

BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '3s';"
    # A gateway that is stopped in the middle of a transaction must not keep its sessions from the others.
    " SET LOCAL idle_in_transaction_session_timeout = '6s';"
    # Every statement finds its rows by an index. On a young table the planner would scan, and keep that plan as it grows.
    " SET LOCAL enable_seqscan = off;"
    # In each transaction: the server's own value may change at any time, also for connections that are open.
    " SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)

_SESSION: Final = (
    "id, name, epoch, created, version, first_offset, next_offset, bytes_begin, bytes_end, latest, closed, draft,"
    " writer_order"
)

# Each transaction leaves its token in the row of its writer.
_MARK: Final = """
    WITH mark AS (
        INSERT INTO wakeline.writers (id, token, at) VALUES ($2, $3, now())
        ON CONFLICT (id) DO UPDATE SET token = excluded.token, at = excluded.at
    )
"""

LOCK: Final = f"{_MARK} SELECT {_SESSION} FROM wakeline.sessions WHERE name = ANY($1::text[]) ORDER BY name FOR UPDATE"

LOCK_RECORDS: Final = (
    f"{_MARK} SELECT key, revision FROM wakeline.records WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE"
)

# It waits for the end of the transaction that is asked about, if the server has not noticed yet that its client is gone. A
# SELECT would not: the writer's first transaction has inserted the row, which others do not see before its end.
LAST_TOKEN: Final = """
    INSERT INTO wakeline.writers (id, token, at) VALUES ($1, 0, now())
    ON CONFLICT (id) DO UPDATE SET at = excluded.at RETURNING token
"""

FORGET_WRITERS: Final = "DELETE FROM wakeline.writers WHERE at < now() - interval '1 day'"

IDS: Final = "SELECT nextval('wakeline.ids') FROM generate_series(1, $1::int)"

PUBLISHERS: Final = """
    SELECT asked.session, asked.name, p.id, p.attempt, p.owner,
        last.first_sequence, last.next_sequence, last.first_offset, last.next_offset
    FROM unnest($1::bigint[], $2::text[]) AS asked (session, name)
    LEFT JOIN wakeline.publishers p ON p.session = asked.session AND p.name = asked.name
    LEFT JOIN LATERAL (
        SELECT first_sequence, next_sequence, first_offset, next_offset FROM wakeline.publications
        WHERE publisher = p.id ORDER BY first_sequence DESC LIMIT 1
    ) last ON true
"""

# All of them in one round trip. A session that another gateway has created meanwhile is not inserted: the caller counts.
FLUSH: Final = """
    WITH inserted AS (
        INSERT INTO wakeline.sessions (id, name, epoch, created, version, first_offset, next_offset, bytes_begin, bytes_end,
            latest, closed, draft, writer_order, config, deadline)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::boolean[], $12::boolean[], $13::text[], $14::bytea[],
            $15::double precision[])
        ON CONFLICT (name) DO NOTHING RETURNING 1
    ), updated AS (
        UPDATE wakeline.sessions s SET version = n.version, next_offset = n.next_offset, bytes_end = n.bytes_end,
            latest = n.latest, closed = n.closed, writer_order = n.writer_order
        FROM unnest($16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::boolean[], $22::text[])
            AS n (id, version, next_offset, bytes_end, latest, closed, writer_order)
        WHERE s.id = n.id
    ), appended AS (
        INSERT INTO wakeline.events (session, at, topic, body, bytes_before, latest)
        SELECT * FROM unnest($23::bigint[], $24::bigint[], $25::text[], $26::bytea[], $27::bigint[], $28::bigint[])
    ), known AS (
        INSERT INTO wakeline.publishers (id, session, name, attempt, owner, owner_name)
        SELECT * FROM unnest($29::bigint[], $30::bigint[], $31::text[], $32::bigint[], $33::text[], $34::text[])
        -- Not by id: the row of another session under this id must be an error, and not overwritten.
        ON CONFLICT (session, name) DO UPDATE
        SET attempt = excluded.attempt, owner = excluded.owner, owner_name = excluded.owner_name
    ), placed AS (
        INSERT INTO wakeline.publications (publisher, first_sequence, next_sequence, first_offset, next_offset)
        SELECT * FROM unnest($35::bigint[], $36::bigint[], $37::bigint[], $38::bigint[], $39::bigint[])
        -- `first_offset` changes for an attempt that has appended nothing yet.
        ON CONFLICT (publisher, first_sequence) DO UPDATE SET next_sequence = excluded.next_sequence,
            next_offset = excluded.next_offset, first_offset = excluded.first_offset
    )
    SELECT count(*) FROM inserted
"""

DELETE: Final = """
    WITH deleted AS (DELETE FROM wakeline.sessions WHERE id = $1 RETURNING id)
    INSERT INTO wakeline.erasing SELECT id, extract(epoch FROM now()) FROM deleted
"""

COUNT_OWNED: Final = """
    SELECT count(*) FROM (
        SELECT FROM wakeline.publishers WHERE session = $1 AND owner_name = $2 LIMIT $3
    ) AS owned
"""

# The events of earlier attempts stay valid: many rough stretches that end at one offset become one.
KEEP: Final = """
    INSERT INTO wakeline.kept AS k SELECT publisher, first_offset, next_offset, rough FROM wakeline.publications
    WHERE publisher = $1 AND next_offset > first_offset ON CONFLICT (publisher, first_offset) DO UPDATE
    SET next_offset = k.next_offset + excluded.next_offset - excluded.first_offset, rough = true
"""

VALID: Final = """
    SELECT first_offset, next_offset FROM wakeline.kept WHERE publisher = $1 AND NOT rough
    UNION ALL SELECT first_offset, next_offset FROM wakeline.publications WHERE publisher = $1 AND NOT rough
"""

FORGET_KEPT: Final = "DELETE FROM wakeline.kept WHERE publisher = $1"

FORGET_PLACES: Final = "DELETE FROM wakeline.publications WHERE publisher = $1"

FORGET_PUBLISHER: Final = """
    WITH forgotten AS (DELETE FROM wakeline.publishers WHERE session = $1 AND name = $2 RETURNING id),
    places AS (DELETE FROM wakeline.publications USING forgotten WHERE publisher = forgotten.id)
    DELETE FROM wakeline.kept USING forgotten WHERE publisher = forgotten.id
"""

COUNT_KEPT: Final = (
    "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM wakeline.kept WHERE publisher = $1"
)

PLACE: Final = """
    SELECT first_sequence, next_sequence, first_offset, next_offset FROM wakeline.publications
    WHERE publisher = $1 AND first_sequence <= $2 ORDER BY first_sequence DESC LIMIT 1
"""

CONFIGURE: Final = """
    UPDATE wakeline.sessions SET config = coalesce($2, config), draft = draft AND NOT $3,
        deadline = CASE WHEN $4 THEN $5 ELSE deadline END
    WHERE id = $1
"""

TRIM: Final = """
    WITH removed AS (DELETE FROM wakeline.events WHERE session = $1 AND at >= $2 AND at < $3),
    kept AS (SELECT bytes_before FROM wakeline.events WHERE session = $1 AND at = $3)
    UPDATE wakeline.sessions SET first_offset = $3, bytes_begin = coalesce((SELECT bytes_before FROM kept), bytes_end)
    WHERE id = $1
"""

WRITE_RECORDS: Final = """
    WITH removed AS (DELETE FROM wakeline.records WHERE key = ANY($1::text[])),
    changed AS (
        UPDATE wakeline.records r SET value = n.value, revision = n.revision
        FROM unnest($2::text[], $3::bytea[], $4::bigint[]) AS n (key, value, revision) WHERE r.key = n.key
    ),
    inserted AS (
        INSERT INTO wakeline.records SELECT * FROM unnest($5::text[], $6::bytea[], $7::bigint[])
        ON CONFLICT (key) DO NOTHING RETURNING 1
    )
    SELECT count(*) FROM inserted
"""

REVISIONS: Final = "SELECT nextval('wakeline.revisions') FROM generate_series(1, $1::int)"
