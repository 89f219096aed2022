"""Parses `text/event-stream` as the gateway writes it."""

from __future__ import annotations

from typing import NamedTuple


class Frame(NamedTuple):
    """One event of the stream: the lines between two empty ones.

    Attributes:
        cursor: The field `id`.
        data: The field `data`; empty if only the cursor advances.
    """

    cursor: str
    data: bytes


class FrameParser:
    """A parser that returns frames as soon as they are complete.

    A frame ends with an empty line; the rest of a stream that was cut off is ignored. So are comments, and types of events
    that have no cursor.

    Args:
        bare: Whether plain messages may have no cursor.
    """

    def __init__(self, *, bare: bool = False) -> None:
        self._held = bytearray()
        self._bare = bare

    def feed(self, piece: bytes) -> list[Frame]:
        """Add bytes and return the frames that they complete."""
        held = self._held
        searched = max(0, len(held) - 1)
        held += piece
        end = held.rfind(b"\n\n", searched)
        if end < 0:
            return []
        whole = bytes(held[:end])
        del held[: end + 2]
        return [frame for part in whole.split(b"\n\n") if (frame := _frame(part, self._bare)) is not None]


def _frame(part: bytes, bare: bool) -> Frame | None:
    cursor, data = b"", b""
    for line in part.split(b"\n"):
        if line.startswith(b"data: "):
            data = line[6:]
        elif line.startswith(b"id: "):
            cursor = line[4:]
        elif line.startswith(b"event: "):
            bare = False
    return Frame(cursor.decode("ascii", "replace"), data) if cursor or (bare and data) else None
