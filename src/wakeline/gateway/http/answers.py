"""Answers: JSON, and the error format that all routes share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import structlog
from aiohttp import hdrs, web

from wakeline.errors import (
    InternalError,
    LimitReachedError,
    MethodNotAllowedError,
    NotFoundError,
    TokenExpiredError,
    TokenMissingError,
    UnavailableError,
    WakelineError,
)
from wakeline.gateway.access import ANSWERS
from wakeline.gateway.http.parameters import last_event_id
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.transports import sse

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
# An `EventSource` may read these; those and requests for input have the workflow of the session followed.
_READ: Final = frozenset(
    {"/v1/sessions/{session}", "/v1/sessions/{session}/events", "/v1/feed", "/v1/stream/{session}"}
)
_FOLLOWS: Final = _READ | {"/v1/sessions/{session}/requests", "/v1/sessions/{session}/requests/{request}"}
_UNAVAILABLE_SECONDS: Final = 2.0
_TOKEN_SECONDS: Final = 3.0
_log = structlog.get_logger(__name__)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer with `value` as JSON, which no cache may store."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store", **(headers or {})},
    )


def errors_middleware(parts: Parts) -> Any:
    """Return the middleware that answers every error in Wakeline's format."""

    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers: dict[str, str] = {}
        try:
            return await handler(request)
        except WakelineError as error:
            failure = parts.arrivals.explained(error, read=_reads(request, _FOLLOWS), waited=_waits(request))
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            failure = MethodNotAllowedError(f"expected one of {allowed}, got {request.method}")
            headers[hdrs.ALLOW] = allowed
        except web.HTTPException:
            failure = NotFoundError(f"the gateway has no route {request.path!r}", hint=_no_route(request.path))
        except Exception:  # noqa: BLE001 - answers a defect in the same format as other errors
            _log.exception("request failed", path=_logged(request.path))
            failure = InternalError("the server failed; this is a defect")
        parts.metrics.refused.labels(failure.code).inc()
        if request.writer.output_size and request.transport is not None:
            # A stream has begun: an answer in its middle would break its framing. The client resumes from its cursor.
            request.transport.close()
        if _streams(request) and (seconds := _passes_in(failure, request)) is not None:
            return sse.try_again(failure, seconds)
        return json_answer(failure.wire(), status=failure.status, headers=headers | failure.headers())

    return errors


def _logged(path: str) -> str:
    """Return a path as logs may have it: an answer link is a secret."""
    return f"{ANSWERS}…" if path.startswith(ANSWERS) else path


def _streams(request: web.Request) -> bool:
    """Return whether an `EventSource` requests a stream; others receive an error's status."""
    return _reads(request, _READ) and request.method == hdrs.METH_GET and sse.is_event_source(request)


def _no_route(path: str) -> str | None:
    """Return a hint that fits a path without a route; None for the usual hint."""
    if path == "/":
        return "The inspector is turned off (inspector): GET /v1/sessions lists its sessions, and /healthz reports that it runs."
    if path.startswith("/v1/v1/"):
        return "Write the gateway's URL without /v1: clients add it."
    if path.startswith(("/v1/sessions/", "/v1/stream/")):
        return "Check the path; a / in a session's name is written %2F."
    return None


def _reads(request: web.Request, paths: Collection[str]) -> bool:
    """Return whether a request reads one of these paths."""
    resource = request.match_info.route.resource
    return request.method in (hdrs.METH_GET, hdrs.METH_HEAD) and resource is not None and resource.canonical in paths


def _waits(request: web.Request) -> bool:
    """Return whether a request is to wait for the start of the session that it reads."""
    return request.query.get("wait_for_start") == "true"


def _passes_in(error: WakelineError, request: web.Request) -> float | None:
    """Return the seconds after which the same request may succeed; None if it never will."""
    if isinstance(error, LimitReachedError):
        return error.retry_after
    if isinstance(error, UnavailableError):
        return _UNAVAILABLE_SECONDS
    # A page renews its cookie independently of an EventSource. Browsers omit an expired cookie, so a client that was
    # connected before may send none.
    renewed = isinstance(error, TokenExpiredError) or (
        isinstance(error, TokenMissingError) and last_event_id(request) is not None
    )
    return _TOKEN_SECONDS if renewed else None
