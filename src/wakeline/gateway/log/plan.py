"""The decision of an append, from a publisher's position and a batch; every engine uses it.

A publisher's events are numbered within its attempt. Events that the log already has are omitted, a gap before the batch is
refused, and so is an earlier attempt. When an attempt begins, the events of earlier attempts are superseded if it requests
that. Deciding has no side effects: an engine only stores the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from wakeline.errors import (
    AppendError,
    AttemptFencedError,
    EpochChangedError,
    RequestInvalidError,
    SequenceGapError,
    SessionClosedError,
    SessionDeletedError,
    StreamConflictError,
)
from wakeline.events import ATTEMPT_SUPERSEDED, NewEvent, compose, timestamp
from wakeline.gateway.log.names import check_epoch
from wakeline.gateway.log.owners import takes_over
from wakeline.gateway.log.values import Append, Position, Publication

MAX_STEP: Final = 1_000_000
"""The greatest step between attempts: an activity that is retried every 0.1 s for a day."""

_MAX_RANGES: Final = 10_000  # in one event, of about 20 bytes each


def begins(position: Position | None, publication: Publication) -> bool:
    """Return whether an append begins a new attempt of its publisher.

    Args:
        position: The publisher's position; None if it has none.
        publication: The publication of the append.

    Raises:
        AttemptFencedError: A later attempt has begun.
        PublisherTakenError: The publisher belongs to another owner.
        RequestInvalidError: The attempt is too far above the one before.
    """
    if position is None or takes_over(publication.publisher, position.owner, publication.owner):
        _check_step(0, publication)
        return True
    if publication.attempt < position.attempt:
        raise AttemptFencedError(
            f"expected attempt {position.attempt} or later of {publication.publisher!r}, got attempt {publication.attempt}",
            attempt=position.attempt,
        )
    _check_step(position.attempt, publication)
    return publication.attempt > position.attempt


def check_life(session: str, now: str | None, epoch: str | None, position: Position | None) -> None:
    """Raise if the session that a publisher opened before was deleted.

    A restored session has another epoch too, but still has its publishers. So another epoch is refused only if the publisher
    is unknown.

    Args:
        session: The session's name.
        now: The session's epoch; None if there is no such session.
        epoch: The epoch in which the publisher opened it before; None if it never did.
        position: The publisher's position in the session; None if it is unknown there.

    Raises:
        SessionDeletedError: The session was deleted.
    """
    if epoch is not None and epoch != now and position is None:
        lives = "there is none" if now is None else f"it lives in epoch {now} and does not know this publisher"
        raise SessionDeletedError(f"expected session {session[:64]!r} of epoch {epoch[:64]!r}, {lives}")


def _check_step(before: int, publication: Publication) -> None:
    # Only for publishers: a Durable Streams producer may use any epoch, and the gateway's own attempts grow by one.
    if publication.covers is None and publication.attempt > before + MAX_STEP:
        raise RequestInvalidError(
            f"expected an attempt of at most {before + MAX_STEP} of {publication.publisher!r}, got {publication.attempt}"
        )


def superseded(publication: Publication, stretches: Iterable[tuple[int, int]]) -> tuple[NewEvent, ...]:
    """Return a new attempt's `$attempt.superseded` events; none if there is nothing to withdraw.

    Args:
        publication: The attempt that begins.
        stretches: The offsets of the earlier attempts' events: first offset, and the one after the last.
    """
    ranges: list[list[int]] = []
    for first, after in sorted(stretches):
        if first == after:
            continue
        if ranges and ranges[-1][1] == first - 1:
            ranges[-1][1] = after - 1
        else:
            ranges.append([first, after - 1])
    return tuple(
        compose(
            ATTEMPT_SUPERSEDED,
            msgspec.json.encode(
                {
                    "activity": publication.activity,
                    "attempt": publication.attempt,
                    "offsets": ranges[at : at + _MAX_RANGES],
                }
            ),
            time=timestamp(),
            run=publication.run,
            activity=publication.activity,
            attempt=publication.attempt,
        )
        for at in range(0, len(ranges), _MAX_RANGES)
    )


class Plan(msgspec.Struct, frozen=True, gc=False):
    """The decision of an append.

    Attributes:
        there: The number of events at the front of the batch that the log already has, and that are omitted. A batch without
            events that passes over sequence numbers counts as one event.
        begins: Whether the publisher's attempt begins with the batch, which ends the earlier attempts.
        advances: Whether the publisher's position moves.
        closes: Whether the batch closes the session.
        duplicate: Whether the batch changes nothing or is trimmed.
        order: The last order of an append to the session, after this one.
    """

    there: int = 0
    begins: bool = False
    advances: bool = False
    closes: bool = False
    duplicate: bool = False
    order: str = ""


class Life(Protocol):
    """The life of a session, as the decision of an append needs it."""

    @property
    def epoch(self) -> str:
        """Its epoch."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        ...

    @property
    def order(self) -> str:
        """The last `order` of an append to it; empty if none had one."""
        ...


def plan_append(append: Append, position: Position | None, life: Life | None) -> Plan:
    """Decide on an append; every engine carries out the returned plan.

    Args:
        append: The batch.
        position: The position of its publisher in the session; None if it has appended nothing there.
        life: The session's life; None if there is no such session.

    Raises:
        EpochChangedError: The session does not live in the append's epoch.
        SessionDeletedError: There is no session, and the publisher has appended to it before.
        SequenceGapError: Events before the batch are missing.
        AttemptFencedError: A later attempt has begun.
        PublisherTakenError: The publisher belongs to another owner.
        RequestInvalidError: The attempt is too far above the one before.
        SessionClosedError: The session is closed, and does not have the whole batch.
        StreamConflictError: The log does not have the whole batch, and its `order` does not come after the last one.
    """
    if life is None:
        _check_new(append)
    else:
        check_epoch(append.session, life.epoch, append.epoch)
    publication, order = append.publication, life.order if life is not None else ""
    if life is not None and life.closed:
        return _plan_closed(append, position, order)
    if publication is None:
        return Plan(closes=append.close, order=_order_after(append, order))
    steps = _steps(append.events, publication)
    beginning = begins(position, publication)
    there = _already_there(0 if beginning or position is None else position.next_sequence, publication, steps)
    if there < steps:
        order = _order_after(append, order)
    return Plan(there, beginning, there < steps, append.close, duplicate=there > 0, order=order)


def _plan_closed(append: Append, position: Position | None, order: str) -> Plan:
    """Accept a batch that the log has as a whole: its first answer may have been lost."""
    publication = append.publication
    if publication is not None and position is not None:
        steps = _steps(append.events, publication)
        with suppress(AppendError):
            expected = 0 if begins(position, publication) else position.next_sequence
            if _already_there(expected, publication, steps) == steps:
                return Plan(there=steps, duplicate=True, order=order)
    raise SessionClosedError(f"expected an open session, {append.session!r} is closed")


def _order_after(append: Append, last: str) -> str:
    """Return the last order of the session once a new batch is in it."""
    if append.order and append.order <= last:
        raise StreamConflictError(f"expected a Stream-Seq after {last!r}, got {append.order!r}")
    return append.order or last


def _check_new(append: Append) -> None:
    """Raise unless the batch may create its session."""
    if append.epoch is not None:
        raise EpochChangedError(f"expected {append.session!r} in epoch {append.epoch}, there is none")
    publication = append.publication
    if publication is not None and publication.sequence > 0 and publication.covers is None:
        raise SessionDeletedError(
            f"expected session {append.session[:64]!r} with {publication.sequence} events of"
            f" {publication.publisher!r}, there is no such session"
        )


def _steps(events: Sequence[NewEvent], publication: Publication) -> int:
    return len(events) or int(publication.covers is not None)


def _already_there(expected: int, publication: Publication, steps: int) -> int:
    """Return how many steps of a batch the log has, given the publisher's next sequence."""
    if publication.sequence > expected:
        raise SequenceGapError(
            f"expected sequence {expected} or below from {publication.publisher!r}, got {publication.sequence}",
            expected=expected,
        )
    there = expected - publication.sequence
    if publication.covers is None:
        return min(there, steps)
    if there == 0:
        return 0
    if there >= publication.covers:
        return steps
    # A `$gap` for a range cannot be trimmed: some of the events that it reports as missing are in the log.
    last = publication.sequence + publication.covers - 1
    raise SequenceGapError(
        f"expected sequence {expected} from {publication.publisher!r}, got one batch for {publication.sequence} to {last}",
        expected=expected,
    )
