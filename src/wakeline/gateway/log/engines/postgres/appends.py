"""Appends in a transaction: decides on them by `plan.py`, and collects their rows.

An operation that is refused is refused before any of its rows is collected. Most appends await nothing: their session and
publisher were read when the transaction began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from wakeline.errors import SessionClosedError
from wakeline.gateway.log import owners
from wakeline.gateway.log.engines.postgres import statements as sql
from wakeline.gateway.log.engines.postgres.transaction import Held, Publisher, Transaction
from wakeline.gateway.log.outcomes import each_appended
from wakeline.gateway.log.owners import Owner, check_room
from wakeline.gateway.log.plan import Plan, begins, check_life, plan_append, superseded
from wakeline.gateway.log.stretch import Stretch
from wakeline.gateway.log.values import Append, Appended, NewSession, Opened, Outcome, Publication


async def append_each(transaction: Transaction, appends: Sequence[Append]) -> list[Outcome]:
    """Append batches, each decided by itself; see `Log.append_each`."""
    return await each_appended(partial(append, transaction), appends)


async def append(transaction: Transaction, append: Append) -> Appended:
    """Append a batch; see `Log.append`."""
    session = transaction.session(append.session, append.epoch)
    publication, publisher = append.publication, None
    if session is not None and publication is not None:
        publisher = session.publishers.get(publication.publisher)
    plan = plan_append(append, publisher.position if publisher else None, session)
    there = plan.there
    if session is not None and publisher is None and publication is not None:
        await _check_room(transaction, session, publication)
    if session is None:
        session = transaction.create(NewSession(append.session))
    if plan.begins and plan.advances and publisher is not None and publication is not None:
        await _end_earlier(transaction, session, publisher, publication)
    if plan.order != session.order:
        session.order = plan.order
        transaction.touch(session)
    first_new = session.next_offset
    added = transaction.add(session, append.events[there:])
    if plan.advances and publication is not None:
        publisher = await _advance(transaction, session, publisher, publication, plan, first_new)
    if plan.closes:
        session.closed = True
        transaction.touch(session)
        if not session.draft:
            transaction.changed(session, "closed")
    if not there or not append.events or publication is None or publisher is None:
        return Appended(first_new, session.next_offset, session.epoch, duplicate=plan.duplicate)
    last = publication.sequence + (publication.covers or len(append.events)) - 1
    first = await _offset_of(transaction, publisher, publication.sequence)
    after = await _offset_of(transaction, publisher, last) + 1
    return Appended(first, after, session.epoch, duplicate=not added)


async def open_attempt(transaction: Transaction, name: str, publication: Publication, epoch: str | None) -> Opened:
    """Begin an attempt; see `Log.open_attempt`."""
    session = transaction.session(name)
    publisher = session.publishers.get(publication.publisher) if session is not None else None
    position = publisher.position if publisher else None
    check_life(name, session.epoch if session is not None else None, epoch, position)
    beginning = begins(position, publication)
    if beginning and session is not None:
        if session.closed:
            raise SessionClosedError(f"expected an open session, {name!r} is closed")
        if publisher is None:
            await _check_room(transaction, session, publication)
    if session is None:
        session = transaction.create(NewSession(name))
        transaction.changed(session, "configured")
    if beginning:
        if publisher is not None:
            await _end_earlier(transaction, session, publisher, publication)
        at = session.next_offset
        publisher = await _begin(transaction, session, publisher, publication, Stretch(0, 0, at, at))
        transaction.put_stretch(session, publisher)
    assert publisher is not None
    _used_by(transaction, session, publisher, publication.owner)
    earlier = 0
    if position is not None:
        earlier = int(await transaction.connection.fetchval(sql.COUNT_KEPT, publisher.id))
    return Opened(publisher.attempt, publisher.last.next_sequence, earlier, session.epoch)


async def _check_room(transaction: Transaction, session: Held, publication: Publication) -> None:
    owner = publication.owner
    if owner is None or not session.exists:
        return
    await transaction.flush()
    most = owners.MAX_PUBLISHERS
    owned = await transaction.connection.fetchval(sql.COUNT_OWNED, session.id, owner.name, most)
    check_room(session.name, publication.publisher, owner, Counter({owner.name: int(owned)}))


async def _advance(
    transaction: Transaction,
    session: Held,
    publisher: Publisher | None,
    publication: Publication,
    plan: Plan,
    first_new: int,
) -> Publisher:
    first = publication.sequence + plan.there
    after = first + (publication.covers or session.next_offset - first_new)
    stretch = Stretch(first, after, first_new, session.next_offset)
    if publisher is None or plan.begins:
        publisher = await _begin(transaction, session, publisher, publication, stretch)
    elif not publisher.last.extend(stretch):
        publisher.last = stretch
    transaction.put_stretch(session, publisher)
    _used_by(transaction, session, publisher, publication.owner)
    return publisher


def _used_by(transaction: Transaction, session: Held, publisher: Publisher, owner: Owner | None) -> None:
    """Store a publisher's owner if it had none, or if its owner's topics have changed."""
    if owner is not None and owner != publisher.owner:
        publisher.owner = owner
        transaction.put(session, publisher)


async def _end_earlier(transaction: Transaction, session: Held, publisher: Publisher, publication: Publication) -> None:
    """Supersede the events of earlier attempts, or note that they stay valid."""
    await transaction.flush()
    if not publication.supersedes:
        await transaction.connection.execute(sql.KEEP, publisher.id)
        return
    stretches = [(row[0], row[1]) for row in await transaction.connection.fetch(sql.VALID, publisher.id)]
    await transaction.connection.execute(sql.FORGET_KEPT, publisher.id)
    transaction.add(session, superseded(publication, stretches))


async def _begin(
    transaction: Transaction, session: Held, earlier: Publisher | None, publication: Publication, stretch: Stretch
) -> Publisher:
    if earlier is None:
        name, attempt, owner = publication.publisher, publication.attempt, publication.owner
        publisher = Publisher(transaction.new_id(), name, attempt, stretch, owner)
        transaction.added += 1
    else:
        # The earlier attempt is refused from now on, so the offsets of its events are no longer needed for retries.
        await transaction.flush()
        await transaction.connection.execute(sql.FORGET_PLACES, earlier.id)
        publisher = Publisher(earlier.id, earlier.name, publication.attempt, stretch, earlier.owner)
    transaction.put(session, publisher)
    return publisher


async def _offset_of(transaction: Transaction, publisher: Publisher, sequence: int) -> int:
    stretch = publisher.last
    if sequence < stretch.first_sequence:
        await transaction.flush()
        row = await transaction.connection.fetchrow(sql.PLACE, publisher.id, sequence)
        assert row is not None
        stretch = Stretch(*row)
    return stretch.offset_of(sequence)
