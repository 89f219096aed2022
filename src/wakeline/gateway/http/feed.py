"""The feed's routes: many sessions over one connection."""

from __future__ import annotations

from functools import partial

from aiohttp import hdrs, web

from wakeline.errors import RequestInvalidError
from wakeline.events import check_session_name
from wakeline.gateway.access import GRANT, Grant
from wakeline.gateway.delivery import Topics
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import device_id, flag, last_event_id, refuse_others, until_settled
from wakeline.gateway.transports import feed_sse, websocket
from wakeline.gateway.transports.feed_socket import RESTARTS
from wakeline.gateway.transports.leaving import LEAVING

_OF_SOCKETS = {"device": False}


class FeedRoutes(Group):
    """`/v1/feed`."""

    @route(
        "GET",
        "/v1/feed",
        "from topics until wait_for_start device lastEventId",
        repeated="session",
        allow_head=False,
    )
    async def feed(self, request: web.Request) -> web.StreamResponse:
        """Serve a WebSocket if the request asks for one, otherwise a stream."""
        grant = request[GRANT]
        if request.headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket":
            feed = feed_sse.SseFeed(request, self._parts, grant, _reading(request, grant))
            return await self._parts.lasting.serve(feed.serve())
        name = None
        if request.query_string:
            refuse_others(request, _OF_SOCKETS)
            name = device_id(request)
        connection = websocket.FeedConnection(request, self._parts, grant, name)
        return await self._parts.lasting.serve(connection.serve(), partial(connection.stop, RESTARTS, LEAVING))


def _reading(request: web.Request, grant: Grant) -> feed_sse.Reading:
    names = list(dict.fromkeys(map(check_session_name, request.query.getall("session", []))))
    if not 1 <= len(names) <= feed_sse.MAX_SESSIONS:
        raise RequestInvalidError(f"expected 1 to {feed_sse.MAX_SESSIONS} session parameters, got {len(names)}")
    topics = request.query.get("topics")
    return feed_sse.Reading(
        sessions=names,
        start=last_event_id(request) or request.query.get("from", "beginning"),
        topics=Topics.parse(topics, grant.topics) if topics is not None else grant.topics,
        until_settled=until_settled(request),
        wait_for_start=flag(request, "wait_for_start"),
        device=device_id(request),
    )
