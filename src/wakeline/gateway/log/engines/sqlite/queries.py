"""Reads of the file; the caller runs each function in one snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Sequence
from functools import partial
from typing import Any, Final

from wakeline.errors import SessionNotFoundError, StorageFailedError
from wakeline.events import Event
from wakeline.gateway.log.names import after_prefix, check_epoch
from wakeline.gateway.log.page import page_back, page_from
from wakeline.gateway.log.values import Page, Position, Record, SessionState

DAMAGED: Final = "Stop the gateway, check the disk, and restore the data directory from a backup."
_OF_SESSION: Final = "FROM events WHERE session = sessions.id ORDER BY offset"
STATE: Final = (
    "SELECT name, epoch, created, closed, first_offset, config, deadline,"
    f" (SELECT offset + 1 {_OF_SESSION} DESC LIMIT 1),"
    f" (SELECT bytes_before + length(body) {_OF_SESSION} DESC LIMIT 1),"
    f" (SELECT bytes_before {_OF_SESSION} LIMIT 1)"
    " FROM sessions"
)
POSITION: Final = (
    "SELECT attempt, max(next_sequence) FROM publishers JOIN publications ON publisher = publishers.id"
    " WHERE session = (SELECT id FROM sessions WHERE name = ?) AND name = ? GROUP BY publishers.id"
)
_READ: Final = (
    "SELECT offset, topic, body FROM events WHERE session = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?"
)
_LAST: Final = (
    "SELECT offset + 1, bytes_before + length(body) FROM events WHERE session = ? ORDER BY offset DESC LIMIT 1"
)
# The index is searched by one lower bound only; the + keeps SQLite from taking the lesser one.
RECORDS_AFTER: Final = (
    "SELECT key, value, revision FROM records WHERE key >= ? AND +key > ? AND key < ? ORDER BY key LIMIT ?"
)
# The length of a value is in the row's header, so the pages of the value are not read.
COUNT_RECORDS: Final = "SELECT count(*), coalesce(sum(length(value)), 0) FROM records WHERE key >= ? AND key < ?"
_READ_BACK: Final = "SELECT offset, topic, body FROM events WHERE session = ? AND offset < ? ORDER BY offset DESC"


def parse_state(row: tuple[Any, ...], position: Position | None = None) -> SessionState:
    """Return the state in a row of `STATE`."""
    name, epoch, created, closed, first_offset, config, deadline, next_offset, end, begin = row
    size = 0 if end is None else end - begin
    next_offset = next_offset or first_offset
    return SessionState(name, epoch, next_offset, created, bool(closed), first_offset, size, config, deadline, position)


def state(connection: sqlite3.Connection, session: str, publisher: str | None = None) -> SessionState | None:
    """Return a session's state; see `Log.state`."""
    row = connection.execute(f"{STATE} WHERE name = ? AND NOT draft", (session,)).fetchone()
    if row is None:
        return None
    found = None if publisher is None else connection.execute(POSITION, (session, publisher)).fetchone()
    return parse_state(row, Position(*found) if found else None)


def sessions(
    connection: sqlite3.Connection, after: str, limit: int, ranges: Sequence[tuple[str, str | None]]
) -> list[SessionState]:
    """Return sessions after a name, within ordered ranges of names: index scans."""
    found: list[SessionState] = []
    for first, end in ranges:
        if len(found) == limit or (end is not None and end <= after):
            continue
        bound = "" if end is None else "AND name < ?"
        query = f"{STATE} WHERE NOT draft AND name > ? AND name >= ? {bound} ORDER BY name LIMIT ?"
        given = (after, first, limit - len(found)) if end is None else (after, first, end, limit - len(found))
        found += map(parse_state, connection.execute(query, given))
    return found


def newest(
    connection: sqlite3.Connection,
    before: tuple[str, str] | None,
    limit: int,
    ranges: Sequence[tuple[str, str | None]],
    contains: str,
) -> list[SessionState]:
    """Return sessions within ranges of names, the newest first: a scan of their index."""
    parts, given = list[str](), list[Any]()
    for first, end in ranges:
        parts.append("name >= ?" if end is None else "(name >= ? AND name < ?)")
        given += [first] if end is None else [first, end]
    where = f"NOT draft AND ({' OR '.join(parts) or 'false'}) AND instr(name, ?) > 0"
    if before is not None:
        where = f"(created, name) < (?, ?) AND {where}"
        given = [*before, *given]
    query = f"{STATE} INDEXED BY sessions_by_created WHERE {where} ORDER BY created DESC, name DESC LIMIT ?"
    return [parse_state(row) for row in connection.execute(query, (*given, contains, limit))]


def find(connection: sqlite3.Connection, session: str, epoch: str | None) -> tuple[int, int]:
    """Return a session's id and first offset.

    Raises:
        SessionNotFoundError: There is no such session.
        EpochChangedError: It lives in another epoch.
    """
    query = "SELECT id, first_offset, epoch FROM sessions WHERE name = ? AND (epoch = ? OR NOT draft)"
    row = connection.execute(query, (session, epoch)).fetchone()
    if row is None:
        raise SessionNotFoundError(f"there is no session {session!r}")
    check_epoch(session, row[2], epoch)
    return row[0], row[1]


def read(
    connection: sqlite3.Connection,
    session: str,
    offset: int,
    before: int,
    limit: int,
    topics: Container[str] | None,
    epoch: str | None,
) -> Page:
    """Return a page; see `Log.read`."""
    session_id, first_offset = find(connection, session, epoch)
    began = max(offset, min(first_offset, before))
    rows = connection.execute(_READ, (session_id, began, before, limit))
    return page_from((Event(*row) for row in rows), began, topics, partial(_check_dense, session))


def read_back(
    connection: sqlite3.Connection,
    session: str,
    before: int,
    limit: int,
    topics: Container[str] | None,
    epoch: str | None,
) -> Page:
    """Return a page below an offset; see `Log.read_back`."""
    session_id, _ = find(connection, session, epoch)
    rows = connection.execute(_READ_BACK, (session_id, before))
    return page_back((Event(*row) for row in rows), before, limit, topics, partial(_check_dense, session))


def offset_within(connection: sqlite3.Connection, session: str, size: int, epoch: str) -> int:
    """Return the offset of `Index.offset_within`: a stretch's size is a difference of two rows."""
    session_id, first = find(connection, session, epoch)
    last = connection.execute(_LAST, (session_id,)).fetchone()
    if last is None:
        return first
    after, end = last
    query = "SELECT bytes_before FROM events WHERE session = ? AND offset = ?"
    return _halve(connection, session, query, (session_id, first, after), end - size)


def offset_at(connection: sqlite3.Connection, session: str, moment: int, epoch: str) -> int:
    """Return the offset of `Index.offset_at`, by the column `latest`, which never decreases."""
    session_id, first = find(connection, session, epoch)
    last = connection.execute(_LAST, (session_id,)).fetchone()
    if last is None:
        return first
    query = "SELECT latest FROM events WHERE session = ? AND offset = ?"
    return _halve(connection, session, query, (session_id, first, last[0]), moment)


def _halve(connection: sqlite3.Connection, session: str, query: str, stretch: tuple[int, int, int], least: int) -> int:
    """Return the first offset in a stretch whose value is at least `least`, by binary search.

    The values must not decrease with the offset.
    """
    session_id, low, high = stretch
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(query, (session_id, middle)).fetchone()
        if row is None:
            raise StorageFailedError(
                f"expected offset {middle} of {session!r}, the file has none: it is damaged", hint=DAMAGED
            )
        if row[0] < least:
            low = middle + 1
        else:
            high = middle
    return low


def records_after(connection: sqlite3.Connection, key: str, prefix: str, limit: int | None) -> list[Record]:
    """Return the records of `Records.records_after` from one index range."""
    end = after_prefix(prefix)
    # Texts sort by their bytes in UTF-8, and any text sorts before any blob. A limit of -1 is none.
    bounds = (max(prefix, key), key, b"" if end is None else end, -1 if limit is None else limit)
    return [Record(*row) for row in connection.execute(RECORDS_AFTER, bounds).fetchall()]


def count_records(connection: sqlite3.Connection, prefix: str) -> tuple[int, int]:
    """Return the counts of `Records.count_records` from one index range."""
    end = after_prefix(prefix)
    number, size = connection.execute(COUNT_RECORDS, (prefix, b"" if end is None else end)).fetchone()
    return number, size


def _check_dense(session: str, expected: int, at: int) -> None:
    if at != expected:
        raise StorageFailedError(
            f"expected offset {expected} of {session!r}, the file has {at}: it is damaged", hint=DAMAGED
        )
