"""The table layouts that `layout.py` compares: how events lie in SQLite, how they are written and how they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol

# (session, offset, body), in the order of their offsets within each session.
Row = tuple[int, int, bytes]

SESSION_SHIFT = 40  # offsets below 2**40, sessions below 2**23: together a positive 64-bit key


class Layout(Protocol):
    """One way to keep events in tables."""

    name: str
    schema: str

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Writes the events of one commit."""

    def page(self, connection: sqlite3.Connection, session: int, offset: int, count: int) -> list[bytes]:
        """Reads at least one and about `count` events of a session from `offset` on."""


class WithoutRowid:
    """The events lie in the tree of their own key, sorted by session."""

    name = "(a) without rowid"
    schema = """CREATE TABLE events (
        session INTEGER NOT NULL, offset INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (session, offset)) STRICT, WITHOUT ROWID"""
    _insert = "INSERT INTO events (session, offset, body) VALUES (?, ?, ?)"
    _page = "SELECT body FROM events WHERE session = ? AND offset >= ? ORDER BY offset LIMIT ?"

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        connection.executemany(self._insert, rows)

    def page(self, connection: sqlite3.Connection, session: int, offset: int, count: int) -> list[bytes]:
        return [body for (body,) in connection.execute(self._page, (session, offset, count))]


class RowidAndIndex(WithoutRowid):
    """The events lie in the order of their arrival; a second, small tree finds them by session and offset."""

    name = "(b) rowid + unique index"
    schema = """CREATE TABLE events (
        session INTEGER NOT NULL, offset INTEGER NOT NULL, body BLOB NOT NULL,
        UNIQUE (session, offset)) STRICT"""


class PackedRowid:
    """Session and offset packed into the rowid: one tree, sorted by session, with an integer key."""

    name = "(c) packed rowid"
    schema = "CREATE TABLE events (position INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"
    _insert = "INSERT INTO events (position, body) VALUES (?, ?)"
    _page = "SELECT body FROM events WHERE position >= ? AND position < ? ORDER BY position LIMIT ?"

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        connection.executemany(
            self._insert, [(session << SESSION_SHIFT | offset, body) for session, offset, body in rows]
        )

    def page(self, connection: sqlite3.Connection, session: int, offset: int, count: int) -> list[bytes]:
        first, end = session << SESSION_SHIFT | offset, (session + 1) << SESSION_SHIFT
        return [body for (body,) in connection.execute(self._page, (first, end, count))]


class Chunks:
    """What one commit holds of one session is one row; bodies are JSON on one line, so a newline parts them."""

    name = "(d) chunk per commit"
    schema = """CREATE TABLE events (
        session INTEGER NOT NULL, offset INTEGER NOT NULL, count INTEGER NOT NULL, bodies BLOB NOT NULL,
        UNIQUE (session, offset)) STRICT"""
    _insert = "INSERT INTO events (session, offset, count, bodies) VALUES (?, ?, ?, ?)"
    # The chunk that holds `offset` may begin before it.
    _first = "SELECT offset FROM events WHERE session = ? AND offset <= ? ORDER BY offset DESC LIMIT 1"
    _page = "SELECT offset, count, bodies FROM events WHERE session = ? AND offset >= ? ORDER BY offset LIMIT ?"

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        chunks: dict[int, tuple[int, list[bytes]]] = {}
        for session, offset, body in rows:
            if chunk := chunks.get(session):
                chunk[1].append(body)
            else:
                chunks[session] = (offset, [body])
        connection.executemany(
            self._insert,
            [(session, first, len(bodies), b"\n".join(bodies)) for session, (first, bodies) in chunks.items()],
        )

    def page(self, connection: sqlite3.Connection, session: int, offset: int, count: int) -> list[bytes]:
        found = connection.execute(self._first, (session, offset)).fetchone()
        bodies: list[bytes] = []
        for first, _, chunk in connection.execute(self._page, (session, found[0] if found else offset, count)):
            part = chunk.split(b"\n")
            bodies += part[max(0, offset - first) :]
            if len(bodies) >= count:
                break
        return bodies[:count]


class PackedRowidOneStatement(PackedRowid):
    """(c), with the rows of a commit in as few statements as can be: fewer hand-overs of the interpreter lock."""

    name = "(c1) as (c), few statements"
    rows_per_statement = 100

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), self.rows_per_statement):
            part = rows[start : start + self.rows_per_statement]
            values = ",".join(["(?,?)"] * len(part))
            pairs = [(session << SESSION_SHIFT | offset, body) for session, offset, body in part]
            parameters = [value for pair in pairs for value in pair]
            connection.execute(f"INSERT INTO events (position, body) VALUES {values}", parameters)


class RowidAndIndexOneStatement(RowidAndIndex):
    """(b), with the rows of a commit in as few statements as can be."""

    name = "(b1) as (b), few statements"
    rows_per_statement = 100

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), self.rows_per_statement):
            part = rows[start : start + self.rows_per_statement]
            values = ",".join(["(?,?,?)"] * len(part))
            parameters = [value for row in part for value in row]
            connection.execute(f"INSERT INTO events (session, offset, body) VALUES {values}", parameters)


LAYOUTS: tuple[Layout, ...] = (
    WithoutRowid(),
    RowidAndIndex(),
    PackedRowid(),
    Chunks(),
    RowidAndIndexOneStatement(),
    PackedRowidOneStatement(),
)
