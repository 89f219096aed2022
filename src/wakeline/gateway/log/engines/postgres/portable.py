"""Reads and writes the parts of a session that a move copies and no other port shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from wakeline.errors import SessionNotFoundError
from wakeline.gateway.log.engines.postgres import statements as sql
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.engines.postgres.transaction import Transaction
from wakeline.gateway.log.owners import Owner
from wakeline.gateway.log.portable import StoredPublisher
from wakeline.gateway.log.values import SessionState

_PUBLISHERS: Final = """
    SELECT p.id, p.name, p.attempt, p.owner FROM wakeline.publishers p JOIN wakeline.sessions s ON s.id = p.session
    WHERE s.name = $1 AND s.epoch = $2 AND p.name > $3 ORDER BY p.name LIMIT $4
"""
_STRETCHES: Final = """
    SELECT publisher, first_sequence, next_sequence, first_offset, next_offset, rough FROM wakeline.publications
    WHERE publisher = ANY($1::bigint[]) ORDER BY publisher, first_sequence
"""
_KEPT: Final = """
    SELECT publisher, first_offset, next_offset, rough FROM wakeline.kept
    WHERE publisher = ANY($1::bigint[]) ORDER BY publisher, first_offset
"""
_ORDER: Final = "SELECT writer_order FROM wakeline.sessions WHERE name = $1 AND epoch = $2"
_ADD: Final = """
    INSERT INTO wakeline.publishers (id, session, name, attempt, owner, owner_name)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])
"""
_ADD_STRETCHES: Final = """
    INSERT INTO wakeline.publications (publisher, first_sequence, next_sequence, first_offset, next_offset, rough)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[])
"""
_ADD_KEPT: Final = """
    INSERT INTO wakeline.kept (publisher, first_offset, next_offset, rough)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[])
"""
_ADOPT: Final = """
    UPDATE wakeline.sessions SET epoch = $2, created = $3, closed = $4, writer_order = $5, config = $6, deadline = $7,
        draft = false, version = (random() * 1e15)::bigint
    WHERE id = $1
"""


async def publishers(readers: Readers, session: str, epoch: str, after: str, limit: int) -> list[StoredPublisher]:
    """Return some of a session's publishers; see `Portable.publishers`."""
    rows = await readers.fetch(_PUBLISHERS, session, epoch, after, limit)
    ids = [row["id"] for row in rows]
    stretches, kept = defaultdict[int, list[Any]](list), defaultdict[int, list[Any]](list)
    for row in await readers.fetch(_STRETCHES, ids):
        stretches[row[0]].append(tuple(row[1:]))
    for row in await readers.fetch(_KEPT, ids):
        kept[row[0]].append(tuple(row[1:]))
    return [
        StoredPublisher(row["name"], row["attempt"], row["owner"], tuple(stretches[row["id"]]), tuple(kept[row["id"]]))
        for row in rows
    ]


async def order(readers: Readers, session: str, epoch: str) -> str:
    """Return a session's last `Stream-Seq`; see `Portable.order`."""
    row = await readers.row(_ORDER, session, epoch)
    return "" if row is None else str(row[0])


async def add_publishers(
    transaction: Transaction, session: str, added: Sequence[StoredPublisher], *, epoch: str
) -> None:
    """Add publishers to a draft; see `Portable.add_publishers`."""
    id_ = _draft(transaction, session, epoch)
    connection = transaction.connection
    ids = [row[0] for row in await connection.fetch(sql.IDS, len(added))]
    owners = [Owner.parse(each.owner) for each in added]
    numbered = list(zip(ids, added, strict=True))
    await connection.execute(
        _ADD,
        ids,
        [id_] * len(ids),
        [each.name for each in added],
        [each.attempt for each in added],
        [each.owner for each in added],
        [owner and owner.name for owner in owners],
    )
    stretches = [(number, *stretch) for number, each in numbered for stretch in each.stretches]
    await connection.execute(_ADD_STRETCHES, *(zip(*stretches, strict=True) if stretches else [()] * 6))
    kept = [(number, *stretch) for number, each in numbered for stretch in each.kept]
    await connection.execute(_ADD_KEPT, *(zip(*kept, strict=True) if kept else [()] * 4))


async def adopt(transaction: Transaction, session: str, state: SessionState, its_order: str, *, epoch: str) -> None:
    """Turn a draft into the session that it is a copy of; see `Portable.adopt`."""
    await transaction.connection.execute(
        _ADOPT,
        *(_draft(transaction, session, epoch), state.epoch, state.created, state.closed),
        *(its_order, state.config, state.deadline),
    )


def _draft(transaction: Transaction, session: str, epoch: str) -> int:
    held = transaction.any_session(session)
    if held is None or not held.draft or held.epoch != epoch:
        raise SessionNotFoundError(f"there is no session {session!r}")
    return held.id
