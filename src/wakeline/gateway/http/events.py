"""Events: publish them, read them."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from wakeline.errors import BodyInvalidError, NotAllowedError
from wakeline.events import Cursor, check_session_name
from wakeline.gateway.accept import decode_json, decode_ndjson, publication
from wakeline.gateway.grants import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.parameters import integer, seconds, until_settled
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.hub import Channel
from wakeline.gateway.topics import Topics
from wakeline.gateway.transports import longpoll, sse


class EventRoutes:
    """`/v1/sessions/{session}/events`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._streams: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[web.RouteDef]:
        """The group's routes."""
        return [
            web.post("/v1/sessions/{session}/events", self.publish),
            web.get("/v1/sessions/{session}/events", self.events, allow_head=False),
        ]

    async def publish(self, request: web.Request) -> web.Response:
        """Append a batch."""
        name, grant = request.match_info["session"], request[GRANT]
        grant.check("publish", name)
        body = await request.read()
        if request.content_type == "application/x-ndjson":
            incoming = decode_ndjson(body)
        elif request.content_type == "application/json":
            incoming = decode_json(body)
        else:
            raise BodyInvalidError(
                f"expected Content-Type application/json or application/x-ndjson, got {request.content_type!r}"
            )
        if grant.topics is not None:
            for event in incoming:
                if event.topic not in grant.topics:
                    raise NotAllowedError(f"expected a topic that the token allows, got {event.topic[:64]!r}")
        headers = request.headers
        names = ("Wakeline-Publisher", "Wakeline-Attempt", "Wakeline-Sequence")
        who = publication(*(headers.get(name) for name in names))
        with self._parts.metrics.append_seconds.time():
            appended = await self._parts.accept.publish(name, incoming, who)
        return json_answer(appended)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Read a session, as a stream or as a page."""
        name = check_session_name(request.match_info["session"])
        grant = request[GRANT]
        grant.check("read", name)
        query = _Reading(request, grant.topics)
        if self._parts.upstream is not None:
            await self._parts.upstream.watch(name)
        async with self._parts.hub.attach(name) as channel:
            offset = query.offset(channel)
            if not sse.wanted(request):
                return await longpoll.serve(
                    self._parts.engine, channel, offset, topics=query.topics, limit=query.limit, wait=query.wait
                )
            if query.until_settled and channel.settled and offset == channel.tail:
                return web.Response(status=204)  # tells an EventSource to stop for good
            self._parts.metrics.connections.inc()
            return await self._stream(request, channel, offset, query)

    async def end_streams(self, _: web.Application) -> None:
        """Cut every stream: its device resumes elsewhere, or here when we are back."""
        for task in list(self._streams):
            task.cancel()

    async def _stream(self, request: web.Request, channel: Channel, offset: int, query: _Reading) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            return await sse.serve(
                request,
                self._parts.engine,
                channel,
                offset,
                topics=query.topics,
                until_settled=query.until_settled,
                timeout=self._parts.settings.write_timeout,
            )
        finally:
            self._streams.discard(task)


class _Reading:
    """The parameters of a read."""

    def __init__(self, request: web.Request, granted: Topics | None) -> None:
        self._from = request.headers.get("Last-Event-ID") or request.query.get("from", "beginning")
        topics = request.query.get("topics")
        self.topics = Topics.parse(topics, granted) if topics is not None else granted
        self.until_settled = until_settled(request)
        self.limit = integer(request, "limit", 1000, 1, 10_000)
        self.wait = seconds(request, "wait")

    def offset(self, channel: Channel) -> int:
        """Where to read from."""
        if self._from == "beginning":
            return 0
        if self._from == "now":
            return channel.tail
        return Cursor.parse(self._from).offset_in(channel.epoch, channel.tail)
