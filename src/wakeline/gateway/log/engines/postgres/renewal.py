"""Gives every session a new epoch after a restore, and carries the records over."""

from __future__ import annotations

import random
from typing import Final

from wakeline.gateway.log.engines.postgres.target import Connection
from wakeline.gateway.log.names import new_epoch
from wakeline.gateway.log.store import Carry

_PAGE: Final = 1_000
_SECONDS: Final = 3_600.0

_SESSIONS: Final = "SELECT id, epoch FROM wakeline.sessions WHERE id > $1 ORDER BY id LIMIT $2"
_RENEW: Final = """
    UPDATE wakeline.sessions s SET epoch = n.epoch, version = n.version
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS n (id, epoch, version) WHERE s.id = n.id
"""
_RECORDS: Final = "SELECT key, value FROM wakeline.records WHERE key > $1 ORDER BY key LIMIT $2"
_CARRY: Final = """
    UPDATE wakeline.records SET key = $2, value = $3, revision = nextval('wakeline.revisions') WHERE key = $1
"""


async def renew(connection: Connection, carry: Carry) -> int:
    """Give every session a new epoch; return how many there are. No gateway may use the store."""
    epochs: dict[str, str] = {}
    async with connection.transaction():
        await connection.execute("LOCK TABLE wakeline.sessions, wakeline.records IN EXCLUSIVE MODE", timeout=_SECONDS)
        last = -1
        while rows := await connection.fetch(_SESSIONS, last, _PAGE, timeout=_SECONDS):
            epochs |= {row["epoch"]: new_epoch() for row in rows}
            await connection.execute(
                _RENEW,
                [row["id"] for row in rows],
                [epochs[row["epoch"]] for row in rows],
                [random.getrandbits(62) for _ in rows],
                timeout=_SECONDS,
            )
            last = rows[-1]["id"]
        key = ""
        while rows := await connection.fetch(_RECORDS, key, _PAGE, timeout=_SECONDS):
            for row in rows:
                carried = carry(row["key"], row["value"], epochs)
                if carried != (row["key"], row["value"]):
                    await connection.execute(_CARRY, row["key"], *carried)
            key = rows[-1]["key"]
    return len(epochs)
