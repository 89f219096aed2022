"""The bytes of `text/event-stream`, as the gateway writes it."""

from __future__ import annotations

from typing import NamedTuple


class Frame(NamedTuple):
    """What stood between two empty lines.

    Attributes:
        cursor: The `id:`.
        data: The `data:`; empty where only the cursor moves on.
    """

    cursor: str
    data: bytes


class FrameParser:
    """Takes bytes as they come and gives the frames that are whole.

    A frame ends with an empty line; what was cut off has none, and does not count. Comments, and kinds of events that
    have no cursor, are passed over.

    Args:
        bare: Events that are plain messages come without a cursor, too.
    """

    def __init__(self, *, bare: bool = False) -> None:
        self._held = bytearray()
        self._bare = bare

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that `piece` completes."""
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
