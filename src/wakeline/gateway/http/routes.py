"""All routes, and what every request passes on its way to one."""

from __future__ import annotations

from aiohttp import web

from wakeline.gateway.grants import ANYONE, GRANT
from wakeline.gateway.guard import Guard
from wakeline.gateway.http.answers import Handler, errors_middleware
from wakeline.gateway.http.events import EventRoutes
from wakeline.gateway.http.health import HealthRoutes
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.http.sessions import SessionRoutes


def application(parts: Parts) -> web.Application:
    """The aiohttp application that serves the gateway's parts."""
    guard, events = Guard(parts.settings.cors_origins), EventRoutes(parts)
    app = web.Application(
        client_max_size=parts.settings.max_body_bytes, middlewares=[errors_middleware(parts), guard.middleware, _grant]
    )
    app.on_response_prepare.append(guard.on_prepare)
    app.on_shutdown.append(events.end_streams)
    for group in (events, SessionRoutes(parts), HealthRoutes(parts)):
        app.add_routes(group.routes())
    return app


@web.middleware
async def _grant(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[GRANT] = ANYONE
    return await handler(request)
