"""Reads and writes the parts of a session that a move copies and no other port shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from wakeline.errors import SessionNotFoundError
from wakeline.gateway.log.portable import StoredPublisher
from wakeline.gateway.log.values import SessionState


def publishers(
    connection: sqlite3.Connection, session: str, epoch: str, after: str, limit: int
) -> list[StoredPublisher]:
    """Return some of a session's publishers; see `Portable.publishers`."""
    rows = connection.execute(
        "SELECT p.id, p.name, p.attempt, p.owner FROM publishers p JOIN sessions s ON s.id = p.session"
        " WHERE s.name = ? AND s.epoch = ? AND p.name > ? ORDER BY p.name LIMIT ?",
        (session, epoch, after, limit),
    ).fetchall()
    return [
        StoredPublisher(
            name,
            attempt,
            owner,
            tuple(
                (*stretch[:4], bool(stretch[4]))
                for stretch in connection.execute(
                    "SELECT first_sequence, next_sequence, first_offset, next_offset, rough FROM publications"
                    " WHERE publisher = ? ORDER BY first_sequence",
                    (id_,),
                )
            ),
            tuple(
                (first, after_, bool(rough))
                for first, after_, rough in connection.execute(
                    "SELECT first_offset, next_offset, rough FROM kept WHERE publisher = ? ORDER BY first_offset",
                    (id_,),
                )
            ),
        )
        for id_, name, attempt, owner in rows
    ]


def order(connection: sqlite3.Connection, session: str, epoch: str) -> str:
    """Return a session's last `Stream-Seq`; see `Portable.order`."""
    row = connection.execute(
        "SELECT writer_order FROM sessions WHERE name = ? AND epoch = ?", (session, epoch)
    ).fetchone()
    return "" if row is None else str(row[0])


def add_publishers(
    connection: sqlite3.Connection, session: str, added: Sequence[StoredPublisher], *, epoch: str
) -> None:
    """Add publishers to a draft; see `Portable.add_publishers`."""
    id_ = _draft(connection, session, epoch)
    for publisher in added:
        row = connection.execute(
            "INSERT INTO publishers (session, name, attempt, owner) VALUES (?, ?, ?, ?)",
            (id_, publisher.name, publisher.attempt, publisher.owner),
        )
        connection.executemany(
            "INSERT INTO publications (publisher, first_sequence, next_sequence, first_offset, next_offset, rough)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(row.lastrowid, *stretch) for stretch in publisher.stretches],
        )
        connection.executemany(
            "INSERT INTO kept (publisher, first_offset, next_offset, rough) VALUES (?, ?, ?, ?)",
            [(row.lastrowid, *stretch) for stretch in publisher.kept],
        )


def adopt(connection: sqlite3.Connection, session: str, state: SessionState, its_order: str, *, epoch: str) -> None:
    """Turn a draft into the session that it is a copy of; see `Portable.adopt`."""
    connection.execute(
        "UPDATE sessions SET epoch = ?, created = ?, closed = ?, writer_order = ?, config = ?, deadline = ?, draft = 0"
        " WHERE id = ?",
        (
            *(state.epoch, state.created, state.closed, its_order, state.config, state.deadline),
            _draft(connection, session, epoch),
        ),
    )


def _draft(connection: sqlite3.Connection, session: str, epoch: str) -> int:
    row = connection.execute(
        "SELECT id FROM sessions WHERE name = ? AND epoch = ? AND draft", (session, epoch)
    ).fetchone()
    if row is None:
        raise SessionNotFoundError(f"there is no session {session!r}")
    return int(row[0])
