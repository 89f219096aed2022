"""Wire forms of events. Each is made once per stretch of events, whatever the number of devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wakeline.events import Cursor, Event

SSE_IDLE: Final = b":\n\n"


def sse(_: str, epoch: str, events: Sequence[Event]) -> bytes:
    """Events as `text/event-stream`: `id:` is the cursor after the event, `data:` its JSON object."""
    prefix = epoch.encode()
    return b"".join(
        [b'id: %b-%d\ndata: {"offset":%d,%b\n\n' % (prefix, e.offset + 1, e.offset, e.body) for e in events]
    )


def sse_chunked(session: str, epoch: str, events: Sequence[Event]) -> bytes:
    """The same as one chunk of an HTTP/1.1 chunked body."""
    return chunk(sse(session, epoch, events))


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def page(epoch: str, events: Sequence[Event], next_offset: int, *, up_to_date: bool, settled: bool) -> bytes:
    """Events as one JSON page."""
    flags = b'"up_to_date":%b,"settled":%b' % (b"true" if up_to_date else b"false", b"true" if settled else b"false")
    return b'{"events":[%b],"cursor":"%b","epoch":"%b",%b}' % (
        b",".join([e.json() for e in events]),
        str(Cursor(epoch, next_offset)).encode(),
        epoch.encode(),
        flags,
    )
