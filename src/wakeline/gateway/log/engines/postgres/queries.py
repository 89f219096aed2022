"""Reads: each is one statement, and so one snapshot."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import partial
from typing import Final

import asyncpg
from msgspec import structs

from wakeline.errors import SessionNotFoundError, StorageFailedError
from wakeline.events import Event
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.names import after_prefix, check_epoch
from wakeline.gateway.log.page import page_back, page_from
from wakeline.gateway.log.values import PAGE_BYTES, Page, Position, Record, SessionState

_SCANNED: Final = 5_000  # events of a page that is read backwards

STATE: Final = (
    "SELECT name, epoch, next_offset, created, closed, first_offset, bytes_end - bytes_begin, config, deadline"
    " FROM wakeline.sessions"
)

_STATE_WITH: Final = """
    SELECT s.name, epoch, next_offset, created, closed, first_offset, bytes_end - bytes_begin, config, deadline,
        p.attempt, (SELECT max(next_sequence) FROM wakeline.publications WHERE publisher = p.id)
    FROM wakeline.sessions s LEFT JOIN wakeline.publishers p ON p.session = s.id AND p.name = $2
    WHERE s.name = $1 AND NOT draft
"""

# `skipped`: the bytes of the page before an event. The limit stands inside, so that no more rows are scanned.
_READ: Final = """
    SELECT s.epoch, s.first_offset, e.at, e.topic, e.body
    FROM wakeline.sessions s LEFT JOIN LATERAL (
        SELECT at, topic, body, bytes_before - first_value(bytes_before) OVER (ORDER BY at) AS skipped
        FROM (
            SELECT at, topic, body, bytes_before FROM wakeline.events
            WHERE session = s.id AND at >= $2 AND at < $3 ORDER BY at LIMIT $4
        ) AS page
    ) AS e ON e.skipped < $5
    WHERE s.name = $1 AND (s.epoch = $6 OR NOT s.draft)
    ORDER BY e.at
"""

_READ_BACK: Final = """
    SELECT s.epoch, s.first_offset, e.at, e.topic, e.body
    FROM wakeline.sessions s LEFT JOIN LATERAL (
        SELECT at, topic, body, first_value(bytes_after) OVER (ORDER BY at DESC) - bytes_after AS skipped
        FROM (
            SELECT at, topic, body, bytes_before + octet_length(body) AS bytes_after FROM wakeline.events
            WHERE session = s.id AND at < $2 ORDER BY at DESC LIMIT $3
        ) AS page
    ) AS e ON e.skipped < $4
    WHERE s.name = $1 AND (s.epoch = $5 OR NOT s.draft)
    ORDER BY e.at DESC
"""

# Binary search by a column that never decreases with the offset.
_HALVE: Final = """
    WITH RECURSIVE found AS (
        SELECT id, epoch, first_offset, next_offset, bytes_end FROM wakeline.sessions
        WHERE name = $1 AND (epoch = $2 OR NOT draft)
    ), halves (low, high) AS (
        SELECT first_offset, next_offset FROM found
        UNION ALL
        SELECT CASE WHEN middle.value < {least} THEN (low + high) / 2 + 1 ELSE low END,
            CASE WHEN middle.value < {least} THEN high ELSE (low + high) / 2 END
        FROM halves, found, LATERAL (
            SELECT {column} AS value FROM wakeline.events WHERE session = found.id AND at = (low + high) / 2
        ) AS middle
        WHERE low < high
    )
    SELECT epoch, low, low = high FROM found, halves ORDER BY high - low, low LIMIT 1
"""
OFFSET_WITHIN: Final = _HALVE.format(column="bytes_before", least="(SELECT bytes_end FROM found) - $3::bigint")
OFFSET_AT: Final = _HALVE.format(column="latest", least="$3::bigint")

# The server finds the end of a range in the index only if it is a condition of its own.
_RECORDS: Final = (
    "SELECT key, value, revision FROM wakeline.records WHERE key >= $1 AND key > $2{} ORDER BY key LIMIT $3"
)
RECORDS_AFTER: Final = _RECORDS.format("")
RECORDS_BETWEEN: Final = _RECORDS.format(" AND key < $4")
# The length of a value that is stored apart is in its pointer, so the value is not read.
COUNT_RECORDS: Final = (
    "SELECT count(*), coalesce(sum(octet_length(value)), 0)::bigint FROM wakeline.records"
    " WHERE key >= $1 AND ($2::text IS NULL OR key < $2)"
)
GET_RECORDS: Final = "SELECT key, value, revision FROM wakeline.records WHERE key = ANY($1::text[])"
DUE: Final = "SELECT name, epoch FROM wakeline.sessions WHERE deadline <= $1 ORDER BY deadline LIMIT $2"


async def state(readers: Readers, session: str, publisher: str | None) -> SessionState | None:
    """Return a session's state; see `Log.state`."""
    if publisher is None:
        row = await readers.row(f"{STATE} WHERE name = $1 AND NOT draft", session)
        return None if row is None else SessionState(*row)
    row = await readers.row(_STATE_WITH, session, publisher)
    if row is None:
        return None
    position = None if row[9] is None else Position(row[9], row[10])
    return structs.replace(SessionState(*row[:9]), position=position)


async def sessions(
    readers: Readers, after: str, limit: int, ranges: Sequence[tuple[str, str | None]]
) -> list[SessionState]:
    """Return sessions after a name, within ordered ranges of names: index scans."""
    found: list[SessionState] = []
    for first, end in ranges:
        if len(found) >= limit:
            break
        if end is None:
            where, given = "true", [first]
        elif end.endswith("\0"):  # the first name after another one; the server's texts have no zeros
            where, given = "name <= $4", [first, end[:-1]]
        else:
            where, given = "name < $4", [first, end]
        query = f"{STATE} WHERE NOT draft AND name > $1 AND name >= $3 AND {where} ORDER BY name LIMIT $2"
        rows = await readers.fetch(query, after, limit - len(found), *given)
        found += [SessionState(*row) for row in rows]
    return found


async def newest(
    readers: Readers,
    before: tuple[str, str] | None,
    limit: int,
    ranges: Sequence[tuple[str, str | None]],
    contains: str,
) -> list[SessionState]:
    """Return sessions within ranges of names, the newest first: a scan of their index."""
    parts, given = list[str](), list[object]([limit, contains])

    def added(value: str) -> str:
        given.append(value)
        return f"${len(given)}"

    for first, end in ranges:
        if end is None:
            parts.append(f"name >= {added(first)}")
        elif end.endswith("\0"):  # the first name after another one; the server's texts have no zeros
            parts.append(f"name = {added(first)}")
        else:
            parts.append(f"(name >= {added(first)} AND name < {added(end)})")
    where = f"NOT draft AND ({' OR '.join(parts) or 'false'}) AND strpos(name, $2) > 0"
    if before is not None:
        where += f' AND (created COLLATE "C", name) < ({added(before[0])}, {added(before[1])})'
    query = f'{STATE} WHERE {where} ORDER BY created COLLATE "C" DESC, name DESC LIMIT $1'
    return [SessionState(*row) for row in await readers.fetch(query, *given)]


async def read(
    readers: Readers,
    session: str,
    offset: int,
    before: int,
    limit: int,
    topics: Container[str] | None,
    epoch: str | None,
) -> Page:
    """Return a page; see `Log.read`."""
    rows = await readers.fetch(_READ, session, offset, before, limit, PAGE_BYTES, epoch)
    first_offset = found_row(rows, session, epoch)[1]
    began = max(offset, min(first_offset, before))
    return page_from(_events(rows), began, topics, partial(_check_dense, session))


async def read_back(
    readers: Readers, session: str, before: int, limit: int, topics: Container[str] | None, epoch: str | None
) -> Page:
    """Return a page below an offset; see `Log.read_back`."""
    scanned = limit if topics is None else _SCANNED
    rows = await readers.fetch(_READ_BACK, session, before, scanned, PAGE_BYTES, epoch)
    found_row(rows, session, epoch)
    return page_back(_events(rows), before, limit, topics, partial(_check_dense, session))


async def halve(readers: Readers, query: str, session: str, least: int, epoch: str) -> int:
    """Return the offset that `OFFSET_WITHIN` or `OFFSET_AT` finds."""
    row = found_row(await readers.fetch(query, session, epoch, least), session, epoch)
    if not row[2]:
        raise StorageFailedError(f"expected events of {session!r} without a gap, the database has one")
    return int(row[1])


async def records_after(readers: Readers, key: str, prefix: str, limit: int | None) -> list[Record]:
    """Return the records of `Records.records_after` from one index range."""
    given, end = (max(prefix, key), key, limit), after_prefix(prefix)  # a limit of NULL is none
    rows = await (readers.fetch(RECORDS_AFTER, *given) if end is None else readers.fetch(RECORDS_BETWEEN, *given, end))
    return [Record(*row) for row in rows]


async def count_records(readers: Readers, prefix: str) -> tuple[int, int]:
    """Return the counts of `Records.count_records` from one index range."""
    ((number, size),) = await readers.fetch(COUNT_RECORDS, prefix, after_prefix(prefix))
    return number, size


def found_row(rows: Sequence[asyncpg.Record], session: str, epoch: str | None) -> asyncpg.Record:
    """Return the first row of a session, which begins with its epoch.

    Raises:
        SessionNotFoundError: There is no such session.
        EpochChangedError: It lives in another epoch.
    """
    if not rows:
        raise SessionNotFoundError(f"there is no session {session!r}")
    check_epoch(session, rows[0][0], epoch)
    return rows[0]


def _events(rows: Sequence[asyncpg.Record]) -> Iterator[Event]:
    """Yield the events in rows; a session without events has one row, without an event."""
    return (Event(at, topic, body) for _, _, at, topic, body in rows if at is not None)


def _check_dense(session: str, expected: int, at: int) -> None:
    if at != expected:
        raise StorageFailedError(f"expected offset {expected} of {session!r}, the database has {at}")
