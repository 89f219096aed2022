"""Offsets and cursors on the wire.

An offset is the session's epoch and the next event's offset, `k3v7x2abqm-0000000000000018`. Within an epoch, offsets
sort as text; an offset of an earlier epoch is recognized as such.
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
_INTERVAL: Final = 20  # seconds; this and the next two values are prescribed by the protocol
_INTERVALS_SINCE: Final = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
_MOST_JITTER: Final = 3600 // _INTERVAL


def written(epoch: str, offset: int) -> str:
    """Return an offset of a session in its wire form."""
    return f"{epoch}-{offset:016d}"


def is_explicit(text: str) -> bool:
    """Return whether this names a fixed position, unlike the current beginning or end."""
    return text not in (BEGINNING, NOW)


def resolve(text: str, *, epoch: str, first: int, tail: int) -> int:
    """Return the offset to read from.

    Args:
        text: The parameter as received: `-1`, `now`, or an offset.
        epoch: The session's epoch.
        first: The oldest offset that is kept.
        tail: The offset after the session's last event.

    Raises:
        StreamInvalidError: The text is not an offset, or the offset is past the session's end.
        EpochChangedError: The offset belongs to an earlier epoch of the session.
        OffsetGoneError: Retention has deleted the events at the offset.
    """
    if text == BEGINNING:
        return first
    if text == NOW:
        return tail
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise StreamInvalidError(f"expected offset to be -1, now, or one that this server returned, got {text[:64]!r}")
    offset = int(match[2])
    if match[1] != epoch:
        raise EpochChangedError(f"expected an offset of the stream's epoch {epoch}, got one of epoch {match[1]}")
    if offset > tail:
        raise StreamInvalidError(f"expected an offset up to {written(epoch, tail)}, the stream's end, got {text}")
    if offset < first:
        raise OffsetGoneError(f"expected an offset from {written(epoch, first)}, the oldest that is kept, got {text}")
    return offset


def cursor_after(echoed: int | None) -> int:
    """Return the cursor of a live answer.

    It is the time in intervals, but always after the cursor that was echoed. It prevents caches between server and
    reader from answering two waits with one answer.
    """
    now = int((time.time() - _INTERVALS_SINCE) / _INTERVAL)
    if echoed is None or echoed < now:
        return now
    return echoed + random.randint(1, _MOST_JITTER)


def parse_cursor(text: str | None) -> int | None:
    """Return the cursor that a reader echoes; None without one.

    Raises:
        StreamInvalidError: It is not a number.
    """
    if text is None:
        return None
    if _CURSOR.fullmatch(text) is None:
        raise StreamInvalidError(f"expected cursor to be one that this server returned, got {text[:40]!r}")
    return int(text)
