"""Catch-up and long-poll: one stretch of a stream as the body of an answer."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import hdrs, web

from wakeline.gateway.access import Grant, WhileGranted
from wakeline.gateway.delivery import MOST_PAGES, Channel, Encoded, Topics
from wakeline.gateway.transports.durable_streams import offsets
from wakeline.gateway.transports.durable_streams.content import Content
from wakeline.gateway.transports.durable_streams.headers import SECURITY
from wakeline.gateway.transports.leaving import UntilLeft

_KEPT_BY_CACHES = "private, max-age=31536000, immutable"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a read.

    Attributes:
        offset: The offset parameter as received.
        resumed: Whether the offset came in `Last-Event-ID`.
        topics: The only topics to read; None for all.
        echoed: The cursor that the reader echoed.
        wait: Seconds to wait for the first message; the end of the reader's grant ends the wait earlier. None for a
            catch-up read.
        cache: Whether caches may store a full answer, as the caller's token allows.
    """

    offset: str
    resumed: bool = False
    topics: Topics | None
    echoed: int | None = None
    wait: float | None = None
    cache: bool = False


async def catch_up(request: web.Request, channel: Channel, content: Content, offset: int, asked: Asked) -> web.Response:
    """Answer with the messages from `offset` on, at most a page of them."""
    page = await _page(channel, content, offset, asked.topics)
    if asked.offset == offsets.NOW:
        return _answer(channel, content, page)  # `now` refers to another offset each time, so a tag would be of no use
    tag = _tag(channel, offset, page)
    if _matches(request, tag):
        answer = web.Response(status=304, headers=_position(channel, page.next_offset))
    else:
        answer = _answer(channel, content, page)
    answer.headers[hdrs.ETAG] = tag
    if asked.cache and offsets.is_explicit(asked.offset) and page.next_offset < channel.tail:
        answer.headers[hdrs.CACHE_CONTROL] = _KEPT_BY_CACHES
        answer.headers[hdrs.VARY] = "Authorization, Cookie"
    return answer


async def long_poll(grant: Grant, channel: Channel, content: Content, offset: int, asked: Asked) -> web.Response:
    """Answer with the messages from `offset` on; if there are none, wait for the first.

    The answer is 204 if none arrives in time.
    """
    assert asked.wait is not None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + asked.wait
    nothing, scanned_pages = content.body([]), 0
    answer: web.Response | None = None
    with UntilLeft():
        while True:
            page = await _page(channel, content, offset, asked.topics)
            offset = page.next_offset
            scanned_pages += 1
            more = offset < channel.tail
            if page.chunk != nothing or (more and scanned_pages == MOST_PAGES):
                answer = _answer(channel, content, page)
                break
            if more:
                continue  # a stretch without a message
            scanned_pages = 0
            remaining = grant.within(deadline - loop.time())
            if remaining <= 0 or channel.closed or channel.deleted:
                break
            async with WhileGranted(grant):
                await channel.wait_beyond(offset, remaining)
    if answer is None:
        answer = web.Response(status=204, headers=_position(channel, offset))
    if "Stream-Closed" not in answer.headers:
        answer.headers["Stream-Cursor"] = str(offsets.cursor_after(asked.echoed))
    return answer


async def _page(channel: Channel, content: Content, offset: int, topics: Topics | None) -> Encoded:
    # Keyed by the tail: a page that ends there changes when the tail moves, and a client must read its own writes.
    tail = channel.tail
    if offset >= tail:
        return Encoded(content.body([]), offset)
    form = ("body", content, tail, topics)
    page = await channel.pages.encoded(offset, before=tail, topics=topics, encode=content.body, lane=form)
    return page if page.chunk else Encoded(content.body([]), page.next_offset)


def _answer(channel: Channel, content: Content, page: Encoded) -> web.Response:
    headers = {hdrs.CONTENT_TYPE: content.type, **_position(channel, page.next_offset)}
    return web.Response(body=page.chunk, headers=headers)


def _position(channel: Channel, offset: int) -> dict[str, str]:
    headers = {
        "Stream-Next-Offset": offsets.written(channel.epoch, offset),
        hdrs.CACHE_CONTROL: "no-store",
        **SECURITY,
    }
    if offset >= channel.tail:
        headers["Stream-Up-To-Date"] = "true"
        if channel.closed:
            headers["Stream-Closed"] = "true"
    return headers


def _tag(channel: Channel, offset: int, page: Encoded) -> str:
    """Return a tag that identifies a stretch's bytes, and whether they are the last."""
    at_end = page.next_offset >= channel.tail
    end = ("c" if channel.closed else "t") if at_end else "p"
    return f'"{offsets.written(channel.epoch, offset)}:{page.next_offset}:{end}"'


def _matches(request: web.Request, tag: str) -> bool:
    asked = request.headers.get(hdrs.IF_NONE_MATCH, "")
    return any(given.strip().removeprefix("W/") in (tag, "*") for given in asked.split(","))
