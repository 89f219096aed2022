"""`/v1/stream`: the Durable Streams protocol over sessions.

As that protocol requires, these routes ignore unknown query parameters.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec
from aiohttp import hdrs, web

from wakeline.errors import (
    AttemptFencedError,
    NotAllowedError,
    NotImplementedHereError,
    OffsetGoneError,
    SequenceGapError,
    SessionClosedError,
    WakelineError,
)
from wakeline.events import check_session_name
from wakeline.gateway.access import GRANT, Grant
from wakeline.gateway.delivery import Channel
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_body
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import last_event_id
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.transports.durable_streams import headers, live, offsets, reading
from wakeline.gateway.transports.durable_streams.content import TOPIC
from wakeline.gateway.transports.durable_streams.lifetimes import Lifetimes
from wakeline.gateway.transports.durable_streams.refusals import StreamInvalidError
from wakeline.gateway.transports.durable_streams.stream import Stream
from wakeline.gateway.transports.durable_streams.writing import Admit, Creation, Post, Posted, Streams

_PATH: Final = "/v1/stream/{session:(?s:.+)}"
_RESERVED: Final = "__ds"


class StreamRoutes(Group):
    """Creates, appends to, reads and deletes streams."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._lifetimes = Lifetimes(parts.engine)
        self._streams = Streams(parts.engine, parts.deletions, self._lifetimes, parts.settings)

    @route("PUT", _PATH, "*")
    async def create(self, request: web.Request) -> web.Response:
        """Create a stream, or confirm that it exists with the same properties."""
        name, grant = _named(request)
        grant.check("manage", name)
        headers.refuse_forks(request.headers)
        asked = Creation(
            content_type=headers.content_type(request.headers) or headers.DEFAULT_CONTENT_TYPE,
            lifetime=headers.lifetime(request.headers),
            closed=headers.closes(request.headers),
            body=await read_body(request),
        )
        if asked.body:
            _check_topic(grant, name)
        stream, created = await self._streams.create(name, asked, self._admit(request, grant))
        answered = {hdrs.CONTENT_TYPE: stream.content.type, **stream.headers()}
        if created:
            answered[hdrs.LOCATION] = str(request.url.with_query(None).with_fragment(None))
        return _empty(201 if created else 200, answered)

    @route("POST", _PATH, "*")
    async def append(self, request: web.Request) -> web.Response:
        """Append to a stream, close it, or both."""
        name, grant = _named(request)
        _check_topic(grant, name)
        close = headers.closes(request.headers)
        if close:
            grant.check("manage", name)
        producer = headers.producer(request.headers)
        if producer is not None:
            producer = msgspec.structs.replace(producer, owner=grant.owner_of(producer.publisher))
        post = Post(
            content_type=headers.content_type(request.headers),
            producer=producer,
            seq=headers.stream_seq(request.headers),
            close=close,
            body=await read_body(request),
        )
        if not post.body and not post.close:
            raise StreamInvalidError("expected a body, or Stream-Closed: true")
        stream = await self._streams.find(name)
        try:
            with self._parts.metrics.append_seconds.time():
                posted = await self._streams.append(stream, post, self._admit(request, grant))
        except SessionClosedError as error:
            return self._refused(error, (await self._streams.find(name)).headers())
        except AttemptFencedError as error:
            return self._refused(error, {"Producer-Epoch": str(error.attempt - 1)}, status=403)
        except SequenceGapError as error:
            assert post.producer is not None
            received = str(post.producer.sequence)
            expected = {"Producer-Expected-Seq": str(error.expected), "Producer-Received-Seq": received}
            return self._refused(error, expected)
        return _appended(post, posted)

    @route("GET", _PATH, "offset live cursor lastEventId *", allow_head=False)
    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a stream up to its end, or live."""
        name, grant = _named(request)
        grant.check("read", name)
        mode, asked = _asked(request, grant, self._parts.settings.long_poll_timeout)
        await self._parts.arrivals.at(name, grant)
        while True:
            try:
                return await self._read(request, name, mode, asked)
            except OffsetGoneError:
                if asked.offset != offsets.BEGINNING:
                    raise
                # Retention has trimmed the first events since `_read` resolved the offset: resolve it again.

    async def _read(
        self, request: web.Request, name: str, mode: str | None, asked: reading.Asked
    ) -> web.StreamResponse:
        async with self._attached(name) as (stream, channel):
            first = stream.state.first_offset
            offset = offsets.resolve(asked.offset, epoch=channel.epoch, first=first, tail=channel.tail)
            if mode is None:
                return await reading.catch_up(request, channel, stream.content, offset, asked)
            with self._parts.limits.connection(request, request[GRANT]):
                if mode == "long-poll":
                    waiting = reading.long_poll(request[GRANT], channel, stream.content, offset, asked)
                    answer = await self._parts.lasting.serve(waiting)
                    request[GRANT].check_signer()
                    return answer
                if asked.resumed and channel.closed and offset == channel.tail:
                    return _empty(204, stream.headers())  # 204 makes an EventSource stop reconnecting
                self._parts.metrics.connections.inc()
                return await self._parts.lasting.serve(self._serve_live(request, channel, stream, offset, asked))

    @route("HEAD", _PATH, "*")
    async def describe(self, request: web.Request) -> web.Response:
        """Describe a stream; this does not count as a use that extends its lifetime."""
        name, grant = _named(request)
        grant.check("read", name)
        return _empty(200, (await self._streams.find(name)).described())

    @route("DELETE", _PATH, "*")
    async def delete(self, request: web.Request) -> web.Response:
        """Erase a stream."""
        name, grant = _named(request)
        grant.check("manage", name)
        stream = await self._streams.find(name)
        await self._streams.delete(stream)
        return _empty(204, {})

    @asynccontextmanager
    async def _attached(self, name: str) -> AsyncIterator[tuple[Stream, Channel]]:
        """Yield a stream and its channel, both in the same epoch and with all acknowledged events."""
        while True:
            async with self._parts.hub.attach(name) as channel:
                stream = await self._streams.find(name)
                await self._lifetimes.use(stream)
                if channel.epoch == stream.epoch:
                    # The hub receives an append shortly after the writer's answer: a client reads its own writes.
                    await channel.hear(stream.state.next_offset, closed=stream.state.closed)
                    yield stream, channel
                    return
                await channel.hear(sys.maxsize)  # of the end of its life: the log has the next one already

    async def _serve_live(
        self, request: web.Request, channel: Channel, stream: Stream, offset: int, asked: reading.Asked
    ) -> web.StreamResponse:
        async with self._lifetimes.used(stream):
            timeout = self._parts.settings.write_timeout
            return await live.serve(request, channel, stream.content, offset, asked, timeout)

    def _admit(self, request: web.Request, grant: Grant) -> Admit:
        return partial(self._parts.limits.publish, request, grant)

    def _refused(self, error: WakelineError, answered: Mapping[str, str], status: int | None = None) -> web.Response:
        self._parts.metrics.refused.labels(error.code).inc()
        return json_answer(error.wire(), status=status or error.status, headers={**answered, **headers.SECURITY})


def _named(request: web.Request) -> tuple[str, Grant]:
    name = check_session_name(request.match_info["session"])
    if name == _RESERVED or name.startswith(f"{_RESERVED}/"):
        raise NotImplementedHereError(
            f"expected a stream name that does not begin with {_RESERVED}: such names are reserved for subscriptions"
        )
    return name, request[GRANT]


def _check_topic(grant: Grant, name: str) -> None:
    grant.check("publish", name)
    if grant.topics is not None and TOPIC not in grant.topics:
        raise NotAllowedError(f"expected a token that allows the topic {TOPIC!r}, which holds a stream's messages")


def _asked(request: web.Request, grant: Grant, longest: float) -> tuple[str | None, reading.Asked]:
    """Return how to read (at once if None, `long-poll`, `sse`), and what."""
    mode = _parameter(request, "live")
    if mode not in (None, "long-poll", "sse"):
        raise StreamInvalidError(f"expected live=long-poll or live=sse, got {mode[:40]!r}")
    offset = _parameter(request, "offset")
    if mode is not None and offset is None:
        raise StreamInvalidError(f"expected offset with live={mode}")
    # A reconnecting EventSource sends its position in this header; its URL still has the first offset.
    last = last_event_id(request) if mode == "sse" else None
    return mode, reading.Asked(
        offset=last or (offsets.BEGINNING if offset is None else offset),
        resumed=bool(last),
        topics=grant.topics,
        echoed=offsets.parse_cursor(_parameter(request, "cursor")),
        wait=longest,
        cache=grant.cache,
    )


def _parameter(request: web.Request, name: str) -> str | None:
    given = request.query.getall(name, [])
    if len(given) > 1:
        raise StreamInvalidError(f"expected {name} once, got it {len(given)} times")
    return given[0] if given else None


def _appended(post: Post, posted: Posted) -> web.Response:
    answered = posted.stream.headers()
    if post.producer is not None and posted.sequence is not None:
        answered["Producer-Epoch"] = str(post.producer.epoch)
        answered["Producer-Seq"] = str(posted.sequence)
    new = post.producer is not None and post.body and not posted.duplicate
    return _empty(200 if new else 204, answered)


def _empty(status: int, answered: Mapping[str, str]) -> web.Response:
    """Return an answer without a body, which no cache may store."""
    return web.Response(status=status, headers={hdrs.CACHE_CONTROL: "no-store", **headers.SECURITY, **answered})
