"""Who may call while nobody is asked who they are: this machine, and web pages that were named.

A server on loopback is still in reach of every web page its user visits: by a form or fetch to 127.0.0.1 (told by `Origin`),
and by a name that the page's owner points at 127.0.0.1 (told by `Host`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final, TypeAlias

from aiohttp import hdrs, web

from wakeline.errors import OriginRefusedError
from wakeline.gateway.settings import is_loopback

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_METHODS: Final = "GET, POST, OPTIONS"
_REQUEST_HEADERS: Final = "Content-Type, Last-Event-ID, Wakeline-Publisher, Wakeline-Attempt, Wakeline-Sequence"


@lru_cache(maxsize=256)  # asked for every request, of a handful of names
def _is_loopback(host: str) -> bool:
    return is_loopback(host if host.endswith("]") else host.rsplit(":", 1)[0])


class Guard:
    """Checks `Host` and `Origin`, and answers what browsers ask before they call across origins.

    Args:
        origins: Origins that may call, beside the server's own.
    """

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origins)

    def check(self, request: web.Request) -> str | None:
        """The allowed origin of a request from another origin; None for one that comes from none or from here.

        Raises:
            OriginRefusedError: The request may not be answered.
        """
        host = request.headers.get(hdrs.HOST, "")
        if not _is_loopback(host):
            raise OriginRefusedError(f"expected a loopback name in Host, got {host[:100]!r}")
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or origin == f"{request.scheme}://{host}":
            return None
        if origin not in self._origins:
            raise OriginRefusedError(f"expected one of the configured origins, got {origin[:100]!r}")
        return origin

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse, or answer a preflight, or let through."""
        origin = self.check(request)
        if origin is not None and request.method == hdrs.METH_OPTIONS:
            return web.Response(
                status=204,
                headers={
                    hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
                    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
                },
            )
        return await handler(request)

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Name the allowed origin in every answer to it, streams and errors included."""
        response.headers["X-Content-Type-Options"] = "nosniff"
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
