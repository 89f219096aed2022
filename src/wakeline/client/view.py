"""Checks that each event of a stream is the next one. Pure: no connection, no clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from wakeline.client.errors import StreamBrokenError
from wakeline.client.sse import Frame
from wakeline.errors import CursorInvalidError
from wakeline.events import GAP, Cursor


class WireEvent(msgspec.Struct, frozen=True):
    """An event's JSON object, its data not decoded yet."""

    offset: int
    topic: str
    time: datetime
    data: msgspec.Raw = msgspec.Raw(b"null")
    payload: dict[str, Any] | None = None
    run: str | None = None
    activity: str | None = None
    attempt: int | None = None
    key: str | None = None
    message: dict[str, Any] | None = None
    compact: dict[str, Any] | None = None


decode_event = msgspec.json.Decoder(WireEvent).decode

OPENING = WireEvent(offset=-1, topic="$opening", time=datetime.min)
"""A marker for the place where the compact form may begin; not an event of the session."""


class View:
    """A filter that passes each event once and in order, also behind faulty proxies.

    Args:
        begin: The start of reading: any form of `from`.
        filtered: Whether events may be left out. Otherwise every offset must arrive, or a `$gap` event in its place.

    Attributes:
        position: The `from` of the next request: `begin`, until a frame has arrived.
        filtered: As above.
    """

    bare = False
    """Whether events may have no cursor."""

    def __init__(self, begin: str, *, filtered: bool) -> None:
        self.position = begin
        self.filtered = filtered
        self._at = Cursor.parse(begin) if Cursor.is_one(begin) else None

    def accept(self, frame: Frame) -> WireEvent | None:
        """Return the frame's event, if it is the next one; None for a repetition or a cursor alone.

        Raises:
            StreamBrokenError: The frame is not the next one; read again from `position`.
        """
        cursor, event = decode_frame(frame)
        at = self._at
        if at is not None:
            if cursor.epoch != at.epoch:
                raise StreamBrokenError(f"expected epoch {at.epoch}, got {cursor.epoch}")
            if cursor.offset <= at.offset:
                return None
            first = cursor.offset if event is None else event.offset
            if not self.filtered and first > at.offset and (event is None or event.topic != GAP):
                raise StreamBrokenError(f"expected offset {at.offset}, got {first}", hint=_FILTERED)
        self._at = cursor
        self.position = frame.cursor
        return event


_FILTERED: Final = (
    "Check the proxies on the way to the gateway. If one adds a token for some topics only, read topics='*'."
)


def decode_frame(frame: Frame) -> tuple[Cursor, WireEvent | None]:
    """Return the cursor and the event of a frame.

    Raises:
        StreamBrokenError: The frame has no valid cursor or event, or they do not belong together.
    """
    try:
        cursor = Cursor.parse(frame.cursor)
        event = decode_event(frame.data) if frame.data else None
    except (CursorInvalidError, msgspec.DecodeError, RecursionError) as error:
        raise StreamBrokenError(f"expected an event after a cursor, got {frame.data[:80]!r}: {error}") from error
    if event is not None and cursor.offset != event.offset + 1:
        raise StreamBrokenError(f"expected the cursor after offset {event.offset}, got {frame.cursor}")
    return cursor, event
