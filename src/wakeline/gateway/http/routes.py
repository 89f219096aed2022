"""All routes, and the checks that every request passes before its route."""

from __future__ import annotations

import re
from typing import Any, Final

from aiohttp import web

from wakeline.errors import TokenMissingError
from wakeline.gateway.access import ANYONE, GRANT, NOBODY, announce_end
from wakeline.gateway.http.ag_ui import AgUiRoutes
from wakeline.gateway.http.ai_sdk import AiSdkRoutes
from wakeline.gateway.http.answers import Handler, errors_middleware
from wakeline.gateway.http.devices import DeviceRoutes
from wakeline.gateway.http.durable_streams import StreamRoutes
from wakeline.gateway.http.events import EventRoutes
from wakeline.gateway.http.feed import FeedRoutes
from wakeline.gateway.http.heads import check_head
from wakeline.gateway.http.health import HealthRoutes
from wakeline.gateway.http.inputs import InputRoutes
from wakeline.gateway.http.inspector import InspectorRoutes
from wakeline.gateway.http.lifecycle import LifecycleRoutes
from wakeline.gateway.http.links import LinkRoutes
from wakeline.gateway.http.notifications import NotificationRoutes
from wakeline.gateway.http.nudges import NudgeRoutes
from wakeline.gateway.http.parameters import check_query
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.http.publishing import PublishRoutes
from wakeline.gateway.http.push import PushRoutes
from wakeline.gateway.http.requests import RequestRoutes
from wakeline.gateway.http.sessions import SessionRoutes
from wakeline.gateway.http.tickets import TicketRoutes
from wakeline.gateway.http.traces import TraceRoutes

_WEB_SOCKETS: Final = frozenset({"/v1/feed", "/v1/publish"})


def application(parts: Parts) -> web.Application:
    """Return the aiohttp application that serves the gateway's parts."""
    # Each middleware costs every request a call, and every open stream a frame of memory.
    passed = [errors_middleware(parts), parts.connections.middleware, _admission(parts)]
    app = web.Application(client_max_size=parts.settings.max_body_bytes, middlewares=passed)
    app.on_response_prepare.append(parts.guard.on_prepare)
    app.on_response_prepare.append(parts.lasting.on_prepare)
    app.on_response_prepare.append(announce_end)
    app.on_shutdown.append(parts.lasting.end)
    groups = (
        EventRoutes(parts),
        PublishRoutes(parts),
        FeedRoutes(parts),
        StreamRoutes(parts),
        AiSdkRoutes(parts),
        AgUiRoutes(parts),
        SessionRoutes(parts),
        LifecycleRoutes(parts),
        DeviceRoutes(parts),
        TraceRoutes(parts),
        NotificationRoutes(parts),
        PushRoutes(parts),
        InputRoutes(parts),
        RequestRoutes(parts),
        LinkRoutes(parts),
        NudgeRoutes(parts),
        TicketRoutes(parts),
        HealthRoutes(parts),
        *([InspectorRoutes(parts)] if parts.settings.inspector else []),
    )
    for group in groups:
        app.add_routes([_with_any_name(route) for route in group.routes()])
    return app


def _with_any_name(route: web.RouteDef) -> web.RouteDef:
    """Return the route for names of any character but `/`; aiohttp's pattern excludes braces."""
    path = re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", route.path)
    return web.RouteDef(route.method, path, route.handler, route.kwargs)


def _admission(parts: Parts) -> Any:
    """Return the middleware that checks every request and authenticates its caller."""
    free = {"/", "/healthz", "/readyz", "/v1/answers/{link}", *(["/metrics"] if parts.settings.open_metrics else [])}

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        check_head(request)
        preflight = parts.guard.admit(request)
        if preflight is not None:
            return preflight
        resource = request.match_info.route.resource
        if resource is None or resource.canonical in free:
            request[GRANT] = ANYONE
        else:
            try:
                request[GRANT] = await parts.auth.authenticate(request)
            except TokenMissingError:
                # Browsers send no Authorization with a WebSocket: such a client authenticates with its first frame.
                if resource.canonical not in _WEB_SOCKETS or not web.WebSocketResponse().can_prepare(request):
                    raise
                request[GRANT] = NOBODY
        check_query(request)
        return await handler(request)

    return admit
