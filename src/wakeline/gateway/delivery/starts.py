"""Resolves `from=` in all its forms to an offset, and reads backwards."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from wakeline.errors import CursorInvalidError, RequestInvalidError
from wakeline.events import Cursor, Event, milliseconds, parse_time
from wakeline.gateway.delivery.channel import Channel
from wakeline.gateway.delivery.topics import MOST_PAGES, Topics
from wakeline.gateway.log import PAGE_BYTES, Engine

MAX_TAIL: Final = 10_000
"""The greatest N of `from=tail:N`."""

_TAIL = re.compile(r"tail:(0|[1-9][0-9]{0,4})")


async def resolve_start(
    engine: Engine, channel: Channel, text: str, *, topics: Topics | None = None, seen: int | None = None
) -> int:
    """Return the offset at which reading begins for a value of `from=`.

    Args:
        engine: The log.
        channel: The session's channel.
        text: The parameter's value: `beginning`, `now`, a cursor, `tail:N`, `time:T` or `device`.
        topics: The topics that `tail:N` counts; None for all. Default: None.
        seen: For `device`, the offset after the last acknowledged event; None if the device has acknowledged none.

    Raises:
        RequestInvalidError: The value after `tail:` or `time:` is invalid.
        CursorInvalidError: The value has none of these forms.
        EpochChangedError: The cursor is of another life of the session.
        CursorAheadError: The cursor is past the session's end.
        UnavailableError: The device has seen events that this gateway has not heard of.
    """
    if text == "beginning":
        return 0
    if text == "now":
        return channel.tail
    if text == "device":
        await channel.hear(seen or 0)
        return seen or 0
    if text.startswith("tail:"):
        return await _tail(engine, channel, text, topics)
    if text.startswith("time:"):
        moment = milliseconds(_parse_moment(text.removeprefix("time:")))
        return min(await engine.offset_at(channel.session, moment, epoch=channel.epoch), channel.tail)
    if not Cursor.is_one(text):
        raise CursorInvalidError.of_beginning(text)
    return Cursor.parse(text).offset_in(channel.epoch, channel.tail)


def at_beginning(text: str, offset: int) -> bool:
    """Return whether reading begins at offset 0 because the value of `from=` requests that."""
    return offset == 0 and (text in ("beginning", "device") or Cursor.is_one(text))


async def read_backwards(
    engine: Engine, channel: Channel, end: int, *, limit: int, topics: Topics | None
) -> tuple[list[Event], int, bool]:
    """Return the last events below `end`: at most `limit`, and about `PAGE_BYTES`.

    Args:
        engine: The log.
        channel: The session's channel.
        end: Only offsets below this one.
        limit: The most events.
        topics: Only events of these topics; None for all.

    Returns:
        The events, in the log's order; the offset where they begin, which is the `end` of the page before; and whether no
        events are kept below that offset.
    """
    found: list[Event] = []
    size = 0
    for _ in range(MOST_PAGES):
        if len(found) >= limit or size >= PAGE_BYTES:
            break
        page = await engine.read_back(
            channel.session, end, limit=limit - len(found), topics=topics, epoch=channel.epoch
        )
        found[:0] = page.events
        size += sum(len(event.body) for event in page.events)
        if page.began == end:
            return found, end, True
        end = page.began
    return found, end, False


async def _tail(engine: Engine, channel: Channel, text: str, topics: Topics | None) -> int:
    match = _TAIL.fullmatch(text)
    if match is None or int(match[1]) > MAX_TAIL:
        raise RequestInvalidError(f"expected tail:N with N from 0 to {MAX_TAIL}, got {text[:40]!r}")
    count, end = int(match[1]), channel.tail
    if topics is None:
        return max(0, end - count)
    for _ in range(MOST_PAGES):
        if count <= 0:
            break
        page = await engine.read_back(channel.session, end, limit=count, topics=topics, epoch=channel.epoch)
        count -= len(page.events)
        if page.began == end:
            break
        end = page.began
    return end


def _parse_moment(text: str) -> datetime:
    moment = parse_time(text)
    if moment is None or moment.tzinfo is None:
        raise RequestInvalidError(
            f"expected time: and RFC 3339 with an offset, such as 2026-11-21T05:14:43Z, got {text[:40]!r}"
        )
    return moment
