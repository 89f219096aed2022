"""Offsets and cursors as they are on the wire.

An offset is the session's epoch and the next event's offset, `k3v9x2abqm-0000000000000018`: within a life of the session
they sort as text, and one of an earlier life is told from one of this.
"""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime
from typing import Final

from wakeline.errors import EpochChangedError, OffsetGoneError
from wakeline.gateway.transports.durable_streams.refusals import StreamInvalidError

BEGINNING: Final = "-1"
NOW: Final = "now"

_OFFSET: Final = re.compile(r"([a-z2-7]{10})-([0-9]{16})", re.ASCII)
_CURSOR: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_INTERVAL: Final = 20  # seconds; the protocol's own figures, as the two below
_INTERVALS_SINCE: Final = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
_MOST_JITTER: Final = 3600 // _INTERVAL


def written(epoch: str, offset: int) -> str:
    """An offset of a session as it is on the wire."""
    return f"{epoch}-{offset:016d}"


def is_explicit(text: str) -> bool:
    """Whether this names one place for good, rather than the beginning or the end as they are now."""
    return text not in (BEGINNING, NOW)


def resolve(text: str, *, epoch: str, first: int, tail: int) -> int:
    """Where to read from.

    Args:
        text: As it came: `-1`, `now`, or an offset.
        epoch: The session's epoch.
        first: The oldest event that is kept.
        tail: One past its last event.

    Raises:
        StreamInvalidError: It is not an offset, or past the session's end.
        EpochChangedError: It is of another life of the session.
        OffsetGoneError: Retention has taken what was there.
    """
    if text == BEGINNING:
        return first
    if text == NOW:
        return tail
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise StreamInvalidError(f"expected offset to be -1, now, or one that this server gave, got {text[:64]!r}")
    offset = int(match[2])
    if match[1] != epoch:
        raise EpochChangedError(f"the offset is of epoch {match[1]}, the stream now lives in epoch {epoch}")
    if offset > tail:
        raise StreamInvalidError(f"expected an offset up to {written(epoch, tail)}, the stream's end, got {text}")
    if offset < first:
        raise OffsetGoneError(f"the oldest offset that is kept is {written(epoch, first)}, got {text}")
    return offset


def cursor_after(echoed: int | None) -> int:
    """The cursor that a live answer carries: the time in intervals, and always past the one that was echoed.

    It keeps caches between here and the reader from answering two waits with one answer.
    """
    now = int((time.time() - _INTERVALS_SINCE) / _INTERVAL)
    if echoed is None or echoed < now:
        return now
    return echoed + random.randint(1, _MOST_JITTER)


def parse_cursor(text: str | None) -> int | None:
    """Read the cursor that a reader echoes.

    Raises:
        StreamInvalidError: It is not a number.
    """
    if text is None:
        return None
    if _CURSOR.fullmatch(text) is None:
        raise StreamInvalidError(f"expected cursor to be one that this server gave, got {text[:40]!r}")
    return int(text)
