"""One page of JSON: at once, or as soon as there is an event; forwards, or backwards for history views."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from aiohttp import hdrs, web

from wakeline.events import Cursor
from wakeline.gateway import starts
from wakeline.gateway.compact import Compacts
from wakeline.gateway.device import reached
from wakeline.gateway.hub import Channel
from wakeline.gateway.log import Engine
from wakeline.gateway.topics import Topics
from wakeline.gateway.transports import frames
from wakeline.gateway.transports.negotiation import accepts_gzip

_COMPRESSED_FROM: Final = 1024


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What page is wanted.

    Attributes:
        topics: Only these; None for all.
        limit: The most events.
        wait: Seconds to wait for the first.
        cache: A page that will never change may be kept by caches: the caller's token says so, and it was asked for by
            a cursor.
    """

    topics: Topics | None
    limit: int
    wait: float
    cache: bool


async def forwards(request: web.Request, channel: Channel, offset: int, asked: Asked) -> tuple[web.Response, int]:
    """The events from `offset` on, and where they end; if there are none, wait for the first."""
    tag = f'W/"{Cursor(channel.epoch, offset)}-{asked.limit}-{asked.topics.tag if asked.topics else "all"}"'
    if asked.cache and request.headers.get(hdrs.IF_NONE_MATCH) == tag:
        return _cached(
            web.Response(status=304), tag
        ), offset  # it was full when it got its tag, and so it is the same now
    loop = asyncio.get_running_loop()
    deadline = loop.time() + asked.wait
    began = offset
    while True:
        tail, asked_at = channel.tail, offset
        page = await channel.pages.read(offset, before=tail, limit=asked.limit, topics=asked.topics)
        offset = page.next_offset
        if page.events:
            break
        if offset < channel.tail:
            continue  # a stretch without a matching topic
        remaining = deadline - loop.time()
        if remaining <= 0 or channel.closed:
            break
        await channel.wait_beyond(offset, remaining)
    answer = _answer(request, frames.page(channel, page.events, began, offset))
    if asked.cache and offset < tail and page.began == asked_at:
        return _cached(answer, tag), offset
    return answer, offset


async def compact(
    request: web.Request, channel: Channel, compacts: Compacts, topics: Topics | None
) -> tuple[web.Response, int]:
    """The session's compact form, and where it ends."""
    snapshot = await compacts.snapshot(channel.session, channel.epoch, channel.tail)
    events = await channel.pages.whole(snapshot, topics)
    await reached(channel, snapshot)  # who comes back with the cursor must find it in the session
    return _answer(request, frames.page(channel, events, 0, snapshot.offset)), snapshot.offset


async def backwards(request: web.Request, engine: Engine, channel: Channel, end: int, asked: Asked) -> web.Response:
    """The last events before `end`."""
    events, began = await starts.backwards(engine, channel, end, limit=asked.limit, topics=asked.topics)
    previous = began if events and began > 0 else None
    return _answer(request, frames.page_before(channel, events, previous, end))


def _answer(request: web.Request, body: bytes) -> web.Response:
    answer = web.Response(body=body, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"})
    if len(body) >= _COMPRESSED_FROM and accepts_gzip(request.headers):
        answer.enable_compression(web.ContentCoding.gzip)
    return answer


def _cached(answer: web.Response, tag: str) -> web.Response:
    answer.headers[hdrs.CACHE_CONTROL] = "private, max-age=31536000, immutable"
    answer.headers[hdrs.ETAG] = tag
    answer.headers[hdrs.VARY] = "Accept-Encoding, Authorization, Cookie"
    return answer
