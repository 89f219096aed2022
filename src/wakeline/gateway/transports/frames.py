"""Wire forms of events, each encoded once per stretch of events for all devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from wakeline.events import Cursor, Event
from wakeline.gateway.delivery import Channel
from wakeline.gateway.devices import Change

SSE_IDLE: Final = b":\n\n"


def sse(_: str, epoch: str, events: Sequence[Event]) -> bytes:
    """Return events as `text/event-stream`, with the cursor after each event as its `id:`."""
    prefix = epoch.encode()
    return b"".join(
        [b'id: %b-%d\ndata: {"offset":%d,%b\n\n' % (prefix, e.offset + 1, e.offset, e.body) for e in events]
    )


def sse_chunked(session: str, epoch: str, events: Sequence[Event]) -> bytes:
    """Return events as `text/event-stream` in one chunk of an HTTP/1.1 chunked body."""
    return chunk(sse(session, epoch, events))


def sse_compact(_: str, __: str, events: Sequence[Event]) -> bytes:
    """Return compact events, without `id:`: a device that is cut among them must restart."""
    return b"".join([b'data: {"offset":%d,%b\n\n' % (e.offset, e.body) for e in events])


def sse_compact_chunked(session: str, epoch: str, events: Sequence[Event]) -> bytes:
    """Return events of the compact form in one chunk of an HTTP/1.1 chunked body."""
    return chunk(sse_compact(session, epoch, events))


def sse_presence(session: str, changes: Sequence[Change]) -> bytes:
    """Return joins and leaves as events without `id:`: they are not in the log."""
    return b"".join(
        b"event: presence\ndata: %b\n\n" % msgspec.json.encode({"session": session, **msgspec.to_builtins(change)})
        for change in changes
    )


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def page(channel: Channel, events: Sequence[Event], began: int, next_offset: int) -> bytes:
    """Return events as one JSON page, which was read from `began` on."""
    head, foot = page_around(channel, began, next_offset)
    return head + joined(events) + foot


def page_around(channel: Channel, began: int, next_offset: int) -> tuple[bytes, bytes]:
    """Return the bytes before and after the events of a JSON page."""
    return b'{"events":[', b'],"from":"%b","cursor":"%b",%b}' % (
        str(Cursor(channel.epoch, began)).encode(),
        str(Cursor(channel.epoch, next_offset)).encode(),
        _state(channel, up_to_date=next_offset >= channel.tail),
    )


def joined(events: Sequence[Event]) -> bytes:
    """Return events as elements of a JSON array."""
    return b",".join([e.json() for e in events])


def page_before(channel: Channel, events: Sequence[Event], previous: int | None, end: int) -> bytes:
    """Return the events before `end` as a JSON page; `previous` is where the page before ends."""
    return b'{"events":[%b],"previous":%b,"cursor":"%b",%b}' % (
        joined(events),
        b"null" if previous is None else b'"%b"' % str(Cursor(channel.epoch, previous)).encode(),
        str(Cursor(channel.epoch, end)).encode(),
        _state(channel, up_to_date=end >= channel.tail),
    )


def _state(channel: Channel, *, up_to_date: bool) -> bytes:
    return b'"epoch":"%b","up_to_date":%b,"settled":%b,"closed":%b' % (
        channel.epoch.encode(),
        _boolean(up_to_date),
        _boolean(channel.settled),
        _boolean(channel.closed),
    )


def _boolean(value: bool) -> bytes:
    return b"true" if value else b"false"
