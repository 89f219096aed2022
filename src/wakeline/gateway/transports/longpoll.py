"""Pages of JSON: forwards, at once or as soon as there is an event, or backwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import hdrs, web

from wakeline.events import Cursor, Event
from wakeline.gateway.access import GRANT, WhileGranted
from wakeline.gateway.delivery import FILTERED_EVENTS, MOST_PAGES, Channel, Compacts, Topics, read_backwards
from wakeline.gateway.log import PAGE_BYTES, Engine, Page
from wakeline.gateway.transports import frames
from wakeline.gateway.transports.leaving import UntilLeft
from wakeline.gateway.transports.negotiation import accepts_gzip
from wakeline.gateway.transports.pieces import write_pieces

_COMPRESSED_FROM: Final = 1024


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a page.

    Attributes:
        topics: The only topics to read; None for all.
        limit: The most events.
        wait: Seconds to wait for the first event; the end of the caller's grant ends the wait earlier.
        cache: Whether caches may store a full page: the caller's token allows it, and the request names its start by a
            cursor.
    """

    topics: Topics | None
    limit: int
    wait: float
    cache: bool


async def forwards(request: web.Request, channel: Channel, offset: int, asked: Asked) -> tuple[web.Response, int]:
    """Return a page from `offset` on and the offset after it; wait if there are no events."""
    tag = f'W/"{Cursor(channel.epoch, offset)}-{asked.limit}-{asked.topics.tag if asked.topics else "all"}"'
    if asked.cache and request.headers.get(hdrs.IF_NONE_MATCH) == tag:
        # Only full pages have a tag, and the events of a full page never change.
        return _cached(web.Response(status=304), tag), offset
    loop, grant = asyncio.get_running_loop(), request[GRANT]
    deadline = loop.time() + asked.wait
    began, scanned_pages = offset, 0
    events: list[Event] = []
    is_full = False
    with UntilLeft() as block:
        while True:
            tail, asked_at = channel.tail, offset
            page = await _page(channel, offset, tail, asked)
            events, offset = page.events, page.next_offset
            is_full = offset < tail and page.began == asked_at
            scanned_pages += 1
            if events:
                break
            if offset < channel.tail:
                if scanned_pages < MOST_PAGES:
                    continue  # a stretch without an event of these topics
                break
            scanned_pages = 0
            remaining = grant.within(deadline - loop.time())
            if remaining <= 0 or channel.closed:
                break
            async with WhileGranted(grant):
                await channel.wait_beyond(offset, remaining)
    answer = _answer(request, frames.page(channel, events, began, offset))
    if asked.cache and is_full and not block.left:
        return _cached(answer, tag), offset
    return answer, offset


async def _page(channel: Channel, offset: int, before: int, asked: Asked) -> Page:
    """Return a page of at most `limit` events; with topics, more events are scanned for it."""
    if asked.topics is None:
        return await channel.pages.read(offset, before=before, limit=asked.limit)
    scanned = max(asked.limit, FILTERED_EVENTS)
    page = await channel.pages.read(offset, before=before, limit=scanned, topics=asked.topics)
    if len(page.events) <= asked.limit:
        return page
    kept = page.events[: asked.limit]
    return Page(kept, kept[-1].offset + 1, page.began)


async def compact(
    request: web.Request, channel: Channel, compacts: Compacts, topics: Topics | None, *, timeout: float
) -> tuple[web.StreamResponse, int]:
    """Return the session's compact form and the offset after it."""
    snapshot = await compacts.snapshot(channel.session, channel.epoch, channel.tail)
    await channel.reach(snapshot.offset)  # so that the cursor in the answer is not ahead of the session
    first = await channel.pages.compact(snapshot, 0, topics=topics, encode=frames.joined, form=frames.joined)
    head, foot = frames.page_around(channel, 0, snapshot.offset)
    if first.next_offset >= snapshot.offset and len(first.chunk) <= PAGE_BYTES:
        return _answer(request, head + first.chunk + foot), snapshot.offset

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        yield first.chunk
        comma, at = b"," if first.chunk else b"", first.next_offset
        while at < snapshot.offset:
            page = await channel.pages.compact(snapshot, at, topics=topics, encode=frames.joined, form=frames.joined)
            if page.chunk:
                yield comma
                yield page.chunk
                comma = b","
            at = page.next_offset
        yield foot

    answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json", hdrs.CACHE_CONTROL: "no-store"})
    if accepts_gzip(request.headers):
        answer.enable_compression(web.ContentCoding.gzip)
    return await write_pieces(request, answer, pieces(), timeout=timeout), snapshot.offset


async def backwards(request: web.Request, engine: Engine, channel: Channel, end: int, asked: Asked) -> web.Response:
    """Answer with the last events before `end`; with topics, perhaps none of those scanned."""
    events, began, over = await read_backwards(engine, channel, end, limit=asked.limit, topics=asked.topics)
    previous = began if began > 0 and (events or not over) else None
    return _answer(request, frames.page_before(channel, events, previous, end))


def _answer(request: web.Request, body: bytes) -> web.Response:
    answer = web.Response(body=body, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"})
    if len(body) >= _COMPRESSED_FROM and accepts_gzip(request.headers):
        answer.enable_compression(web.ContentCoding.gzip)
    return answer


def _cached(answer: web.Response, tag: str) -> web.Response:
    answer.headers[hdrs.CACHE_CONTROL] = "private, max-age=31536000, immutable"
    answer.headers[hdrs.ETAG] = tag
    # `Accept` chooses between a page and a stream, and `Last-Event-ID` goes before the start in the URL.
    answer.headers[hdrs.VARY] = "Accept, Accept-Encoding, Authorization, Cookie, Last-Event-ID"
    return answer
