"""Reads and writes what a move copies of a session, and its epoch, which a restore changes."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

from wakeline.errors import SessionNotFoundError
from wakeline.gateway.log.engines.nats.composition import Composition
from wakeline.gateway.log.names import new_epoch
from wakeline.gateway.log.portable import StoredPublisher
from wakeline.gateway.log.values import SessionState


def publishers(now: Composition, epoch: str, after: str, limit: int) -> list[StoredPublisher]:
    """Return some of a session's publishers; see `Portable.publishers`."""
    if not now.alive or now.summary.epoch != epoch:
        return []
    names = nsmallest(limit, (name for name in now.held.publishers if name > after))
    return [now.held.publishers[name].stored(name) for name in names]


def order(now: Composition, epoch: str) -> str:
    """Return a session's last `Stream-Seq`; see `Portable.order`."""
    return now.summary.order if now.alive and now.summary.epoch == epoch else ""


def add_publishers(now: Composition, added: Sequence[StoredPublisher], epoch: str) -> None:
    """Add publishers to a draft; see `Portable.add_publishers`."""
    _check_draft(now, epoch)
    for one in added:
        now.held.put(one)
    now.touched = True
    now.need_snapshot()


def adopt(now: Composition, state: SessionState, its_order: str, epoch: str) -> None:
    """Turn a draft into the session that it is a copy of; see `Portable.adopt`."""
    _check_draft(now, epoch)
    now.put(
        epoch=state.epoch,
        former=(epoch,),
        created=state.created,
        closed=state.closed,
        order=its_order,
        config=state.config,
        deadline=state.deadline,
        draft=False,
    )


def renew(now: Composition) -> None:
    """Begin a new epoch of the session, whose events stay."""
    if now.alive:
        now.put(epoch=new_epoch(), former=(*now.summary.former, now.summary.epoch))


def _check_draft(now: Composition, epoch: str) -> None:
    if not now.alive or not now.summary.draft or now.summary.epoch != epoch:
        raise SessionNotFoundError(f"there is no session {now.name!r}")
