"""Operations on a session: each decides on the state so far and adds to the next message."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec import UNSET, UnsetType

from wakeline.errors import SessionClosedError
from wakeline.events import NewEvent
from wakeline.gateway.log import owners
from wakeline.gateway.log.engines.nats.composition import Composition
from wakeline.gateway.log.engines.nats.messages import Effect
from wakeline.gateway.log.outcomes import each_decided
from wakeline.gateway.log.plan import Plan, begins, check_life, plan_append, superseded
from wakeline.gateway.log.stretch import HeldPublisher, published_at
from wakeline.gateway.log.values import (
    Append,
    Appended,
    NewSession,
    Opened,
    Outcome,
    Publication,
    Published,
    SessionState,
)


def append(now: Composition, append: Append) -> Appended:
    """Append a batch; see `Log.append`."""
    now.check_visible(append.epoch)
    publication = append.publication
    publisher = _publisher(now, publication)
    plan = plan_append(append, publisher.position if publisher else None, now.summary if now.alive else None)
    if publication is not None and publisher is None:
        owners.check_room(append.session, publication.publisher, publication.owner, now.held.owned)
    writes = plan.there < len(append.events) or plan.advances or plan.closes
    if writes and not now.alive:
        now.create(NewSession(now.name))
    first_new = _written(now, append, plan) if writes else now.summary.next_offset
    if not plan.there or not append.events or publication is None or publisher is None:
        return Appended(first_new, now.summary.next_offset, now.summary.epoch, duplicate=plan.duplicate)
    held = now.held.publishers[publication.publisher]
    first = held.offset_of(publication.sequence)
    after = held.offset_of(publication.sequence + (publication.covers or len(append.events)) - 1) + 1
    return Appended(first, after, now.summary.epoch, duplicate=plan.there >= len(append.events))


def append_each(now: Composition, appends: Sequence[Append]) -> list[Outcome]:
    """Append batches, each decided by itself; see `Log.append_each`."""
    return each_decided(partial(append, now), appends)


def _publisher(now: Composition, publication: Publication | None) -> HeldPublisher | None:
    if publication is None or not now.alive:
        return None
    return now.held.publishers.get(publication.publisher)


def _written(now: Composition, append: Append, plan: Plan) -> int:
    """Add a batch that was decided; return the offset of its first new event."""
    publication = append.publication
    withdrawn = _superseded(now, publication) if plan.begins and plan.advances and publication is not None else ()
    now.add(withdrawn)
    first_new = now.summary.next_offset
    now.add(append.events[plan.there :])
    if publication is not None and plan.advances:
        count = publication.covers or len(append.events)
        now.effect(
            Effect(
                publication.publisher,
                publication.attempt,
                publication.owner.text() if publication.owner is not None else None,
                plan.begins,
                publication.supersedes,
                publication.sequence + (0 if publication.covers else plan.there),
                publication.sequence + count,
                first_new,
                now.summary.next_offset,
            )
        )
    now.put(order=plan.order, closed=now.summary.closed or plan.closes)
    if plan.closes:
        now.changed("closed")
    return first_new


def _superseded(now: Composition, publication: Publication) -> tuple[NewEvent, ...]:
    earlier = now.held.publishers.get(publication.publisher)
    if earlier is None or not publication.supersedes:
        return ()
    return superseded(publication, earlier.offsets())


def open_attempt(now: Composition, publication: Publication, epoch: str | None) -> Opened:
    """Begin an attempt; see `Log.open_attempt`."""
    now.check_visible(None)
    publisher = _publisher(now, publication)
    position = publisher.position if publisher is not None else None
    check_life(now.name, now.summary.epoch if now.alive else None, epoch, position)
    beginning = begins(position, publication)
    if beginning and now.alive and now.summary.closed:
        raise SessionClosedError(f"expected an open session, {now.name!r} is closed")
    if publisher is None:
        owners.check_room(now.name, publication.publisher, publication.owner, now.held.owned)
    if not now.alive:
        now.create(NewSession(now.name))
        now.changed("configured")
    owner = publication.owner.text() if publication.owner is not None else None
    if beginning:
        now.add(_superseded(now, publication))
        now.effect(Effect(publication.publisher, publication.attempt, owner, True, publication.supersedes))
    elif publication.owner is not None and publisher is not None and publication.owner != publisher.owner:
        now.effect(Effect(publication.publisher, publication.attempt, owner))
    held = now.held.publishers[publication.publisher]
    earlier = sum(after - first for first, after, _ in held.kept)
    return Opened(held.attempt, held.position.next_sequence, earlier, now.summary.epoch)


def create_session(now: Composition, new: NewSession) -> tuple[SessionState, bool]:
    """Create a session; see `Catalog.create_session`."""
    now.check_visible(None)
    if now.alive:
        return now.summary.state(), False
    now.create(new)
    now.changed("configured")
    return now.summary.state(), True


def configure(
    now: Composition,
    *,
    epoch: str,
    config: bytes | UnsetType,
    deadline: float | UnsetType | None,
    finish: bool,
) -> None:
    """Change what is kept with a session; see `Catalog.configure`."""
    now.check_life(epoch)
    now.put(
        config=now.summary.config if config is UNSET else config,
        deadline=now.summary.deadline if deadline is UNSET else deadline,
        draft=now.summary.draft and not finish,
    )
    if finish or config is not UNSET:
        now.changed("configured")


def delete_session(now: Composition, *, epoch: str | None, draft: bool) -> bool:
    """End the session's life; see `Catalog.delete_session`."""
    if not now.alive or epoch not in (None, now.summary.epoch) or now.summary.draft != draft:
        return False
    now.put(alive=False, config=b"", deadline=None)
    now.changed("deleted")
    now.sealed = True
    return True


def forget_publisher(now: Composition, publisher: str, epoch: str) -> None:
    """Forget the position of a publisher; see `Log.forget_publisher`."""
    now.check_life(epoch)
    if publisher in now.held.publishers:
        now.effect(Effect(publisher, 0, forgets=True))


def trim(now: Composition, *, epoch: str, begin: int, offset: int, size: int, keep: int) -> int:
    """Remove the oldest events; see `Log.trim`.

    Args:
        now: The message.
        epoch: The session's life.
        begin: The oldest kept offset that the caller has seen.
        offset: The oldest offset to keep.
        size: The size of the events in between.
        keep: The sequence of the oldest message that is still needed.

    Returns:
        The oldest kept offset.
    """
    now.check_life(epoch)
    if now.summary.first_offset != begin or offset <= begin:
        return now.summary.first_offset
    if now.held.snapshot_at < keep:  # the messages before `keep` are removed, and with them the last snapshot
        now.need_snapshot()
    now.put(first_offset=offset, bytes_begin=now.summary.bytes_begin + size)
    now.changed("trimmed")
    return offset


def published(now: Composition, offset: int, epoch: str) -> Published | None:
    """Return an event's publication; see `Index.published`."""
    now.check_life(epoch)
    return published_at(offset, now.held.publishers)
