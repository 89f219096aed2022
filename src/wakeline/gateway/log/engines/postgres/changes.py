"""The other operations of a transaction: on the catalog, and on retention."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from wakeline.errors import SessionNotFoundError
from wakeline.gateway.log.engines.postgres import statements as sql
from wakeline.gateway.log.engines.postgres.queries import STATE
from wakeline.gateway.log.engines.postgres.stretches import Stretches
from wakeline.gateway.log.engines.postgres.transaction import Held, Transaction
from wakeline.gateway.log.names import check_epoch
from wakeline.gateway.log.values import NewSession, SessionState


async def create_session(transaction: Transaction, new: NewSession) -> tuple[SessionState, bool]:
    """Create a session; see `Catalog.create_session`."""
    name = new.session
    if transaction.session(name) is not None:
        await transaction.flush()
        row = await transaction.connection.fetchrow(f"{STATE} WHERE name = $1", name)
        assert row is not None
        return SessionState(*row), False
    held = transaction.create(new)
    transaction.add(held, new.events)
    if not new.draft:
        transaction.changed(held, "configured")
    place = (held.epoch, held.next_offset, held.created, new.closed, new.first_offset, held.bytes_end)
    return SessionState(name, *place, new.config, new.deadline), True


async def configure(
    transaction: Transaction,
    name: str,
    *,
    epoch: str,
    config: bytes | UnsetType,
    deadline: float | UnsetType | None,
    finish: bool,
) -> None:
    """Change a session's config or deadline, or finish a draft; see `Catalog.configure`."""
    held = _find(transaction, name, epoch)
    await transaction.flush()
    moved = deadline is not UNSET
    await transaction.connection.execute(
        sql.CONFIGURE, held.id, None if config is UNSET else config, finish, moved, deadline if moved else None
    )
    held.draft = held.draft and not finish
    if not held.draft and (finish or config is not UNSET):
        transaction.changed(held, "configured")


async def delete_session(transaction: Transaction, name: str, *, epoch: str | None, draft: bool) -> bool:
    """Delete a session; see `Catalog.delete_session`."""
    held = transaction.any_session(name)
    if held is None or epoch not in (None, held.epoch) or held.draft != draft:
        return False
    await transaction.delete(held)
    if not draft:
        transaction.changed(held, "deleted")
    return True


async def trim(
    transaction: Transaction, stretches: Stretches, name: str, before: int, *, epoch: str, limit: int
) -> int:
    """Remove a session's oldest events; see `Log.trim`."""
    held = _find(transaction, name, epoch)
    kept = min(before, held.first_offset + limit, held.next_offset)
    if kept <= held.first_offset:
        return held.first_offset
    await transaction.flush()
    await transaction.connection.execute(sql.TRIM, held.id, held.first_offset, kept)
    held.first_offset = kept
    transaction.merged += await stretches.trimmed(transaction.connection, held.id, kept)
    transaction.changed(held, "trimmed")
    return kept


async def forget_publisher(transaction: Transaction, name: str, publisher: str, *, epoch: str) -> None:
    """Remove the position of a publisher; see `Log.forget_publisher`."""
    held = _find(transaction, name, epoch)
    await transaction.flush()
    await transaction.connection.execute(sql.FORGET_PUBLISHER, held.id, publisher)
    held.publishers[publisher] = None
    transaction.touch(held)  # by its version, other gateways know that what they remember of its publishers is old


def _find(transaction: Transaction, name: str, epoch: str) -> Held:
    held = transaction.any_session(name)
    if held is None or (held.draft and held.epoch != epoch):
        raise SessionNotFoundError(f"there is no session {name!r}")
    check_epoch(name, held.epoch, epoch)
    return held
