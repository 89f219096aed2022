"""Routes that read events, as a stream or as a page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

import msgspec
from aiohttp import web

from wakeline.errors import RequestInvalidError
from wakeline.events import Cursor
from wakeline.gateway.access import GRANT, Grant
from wakeline.gateway.delivery import Channel, Topics, at_beginning
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import (
    compact_view,
    device_id,
    flag,
    integer,
    last_event_id,
    offset_of,
    seconds,
    session_of,
    until_settled,
)
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.transports import longpoll, sse


class EventRoutes(Group):
    """`/v1/sessions/{session}/events`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        # A search for a publication visits all publishers of a session, in a SQL engine on one of its few connections that
        # read: one search at a time leaves the others to readers.
        self._searching = asyncio.Lock()

    @route(
        "GET",
        "/v1/sessions/{session}/events",
        "from topics view until device presence wait_for_start before limit wait lastEventId",
        allow_head=False,
    )
    async def events(self, request: web.Request) -> web.StreamResponse:
        """Read a session, as a stream or as a page."""
        name, grant = session_of(request, "read")
        query = _Reading(request, grant)
        await self._parts.arrivals.at(name, grant, wait_for_start=query.wait_for_start)
        async with self._parts.hub.attach(name, query.before or query.start) as channel:
            if query.before is not None:
                end = await self._resolve(channel, query, query.before)
                return await longpoll.backwards(request, self._parts.engine, channel, end, query.page)
            offset = await self._resolve(channel, query, query.start)
            if not query.stream:
                return await self._page(request, channel, offset, query)
            if offset == channel.tail and (channel.closed or (query.until_settled and channel.settled)):
                return web.Response(status=204)  # 204 makes an EventSource stop reconnecting
            with self._parts.limits.connection(request, grant):
                self._parts.metrics.connections.inc()
                return await self._parts.lasting.serve(self._stream(request, channel, offset, query))

    @route("GET", "/v1/sessions/{session}/events/{offset}")
    async def event(self, request: web.Request) -> web.Response:
        """Return one event and its publication."""
        name, grant = session_of(request, "read")
        offset = offset_of(request)
        engine = self._parts.engine
        epoch = (await engine.found(name)).epoch
        page = await engine.read(name, offset, before=offset + 1, limit=1, topics=grant.topics, epoch=epoch)
        if not page.events:
            return json_answer({"event": None, "publication": None})
        async with self._searching:
            published = await engine.published(name, offset, epoch=epoch)
        return json_answer({"event": msgspec.Raw(page.events[0].json()), "publication": published})

    async def _resolve(self, channel: Channel, query: _Reading, text: str) -> int:
        return await self._parts.start(channel, text, query.page.topics, query.user, query.device)

    async def _page(self, request: web.Request, channel: Channel, offset: int, query: _Reading) -> web.StreamResponse:
        if query.compact and at_beginning(query.start, offset) and channel.tail > 0:
            topics, timeout = query.compact_topics(), self._parts.settings.write_timeout
            answer: web.StreamResponse
            # It counts as a connection, because a slow client may read it for long.
            with self._parts.limits.connection(request, request[GRANT]):
                answer, offset = await longpoll.compact(request, channel, self._parts.compacts, topics, timeout=timeout)
        elif not query.page.wait:
            answer, offset = await longpoll.forwards(request, channel, offset, query.page)
        else:
            with (
                self._parts.limits.connection(request, request[GRANT]),
                self._parts.connected(channel, query.user, query.device, lambda: offset, "long-poll"),
            ):
                waiting = longpoll.forwards(request, channel, offset, query.page)
                answer, offset = await self._parts.lasting.serve(waiting)
            request[GRANT].check_signer()
        if query.device is not None:
            self._parts.positions.delivered(channel.session, channel.epoch, query.user, query.device, offset)
        return answer

    def _stream(
        self, request: web.Request, channel: Channel, offset: int, query: _Reading
    ) -> Awaitable[web.StreamResponse]:
        return sse.serve(
            request,
            channel,
            offset,
            topics=query.page.topics,
            until_settled=query.until_settled,
            connected=partial(self._parts.connected, channel, query.user, query.device, transport="sse"),
            presence=self._parts.presence if query.presence else None,
            timeout=self._parts.settings.write_timeout,
            compacts=self._parts.compacts if query.compact and at_beginning(query.start, offset) else None,
        )


class _Reading:
    """The parameters of a request that reads events."""

    def __init__(self, request: web.Request, grant: Grant) -> None:
        self.stream = sse.wanted(request)
        self.start = last_event_id(request) or request.query.get("from", "beginning")
        self.before = request.query.get("before")
        paged = [name for name in ("before", "limit", "wait") if name in request.query]
        if self.stream and paged:
            raise RequestInvalidError(
                f"expected {paged[0]} without Accept: text/event-stream, because streams have no pages"
            )
        if self.before is not None and ("from" in request.query or "wait" in request.query):
            raise RequestInvalidError("expected before without from and wait, because it reads backwards")
        self.until_settled = until_settled(request)
        if self.until_settled and not self.stream:
            raise RequestInvalidError(
                "expected until=settled with Accept: text/event-stream, because a page ends by itself",
                hint="Send Accept: text/event-stream to receive a stream that ends, or leave until out: each page has settled.",
            )
        self.user, self.device = grant.user, device_id(request)
        self.wait_for_start = flag(request, "wait_for_start")
        self.presence = flag(request, "presence")
        if self.presence and not self.stream:
            raise RequestInvalidError(
                "expected presence with Accept: text/event-stream, because pages do not report it"
            )
        self.compact = compact_view(request)
        if self.compact and self.before is not None:
            raise RequestInvalidError("expected before without view=compact, because only the log is read backwards")
        self._paged = "limit" in request.query or "wait" in request.query
        asked = request.query.get("topics")
        topics = Topics.parse(asked, grant.topics) if asked is not None else grant.topics
        self.page = longpoll.Asked(
            topics=topics.of_compact_view() if self.compact and topics is not None else topics,
            limit=integer(request, "limit", 1000, 1, 10_000),
            wait=seconds(request, "wait"),
            # A name such as `tail:5` refers to another page later; a cursor does not.
            cache=grant.cache and Cursor.is_one(self.start),
        )

    def compact_topics(self) -> Topics | None:
        """Return the topics of a page of the compact form.

        Raises:
            RequestInvalidError: The request limits the page; the compact form is always returned whole.
        """
        if self._paged:
            raise RequestInvalidError(
                "expected view=compact without limit and wait, because it returns all of the session"
            )
        return self.page.topics
