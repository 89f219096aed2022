"""Checks a request's source: configured web pages, or this machine if no token is required.

Every web page that a user visits can send requests to a server: by a form or fetch (detected by `Origin`), by an image
or a link (by `Sec-Fetch-Site`), with the user's cookie (by `Origin`, `Sec-Fetch-Site` or `Referer`), and, on loopback,
by a name that the page's owner points at 127.0.0.1 (by `Host`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import structlog
from aiohttp import hdrs, web
from yarl import URL

from wakeline.errors import OriginRefusedError
from wakeline.gateway.access.addresses import Addresses
from wakeline.gateway.access.origins import check_headers, check_origins
from wakeline.gateway.settings import Settings, is_loopback

_METHODS: Final = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
PUBLISHING_HEADERS: Final = (
    *("Wakeline-Publisher", "Wakeline-Attempt", "Wakeline-Sequence", "Wakeline-Run", "Wakeline-Activity"),
    *("Wakeline-Supersede", "Wakeline-Workflow", "Wakeline-Namespace"),
)
_REQUEST_HEADERS: Final = (
    *("Authorization", "Content-Type", "Content-Encoding", "If-None-Match", "Last-Event-ID"),
    *PUBLISHING_HEADERS,
    *("Stream-Closed", "Stream-Seq", "Stream-TTL", "Stream-Expires-At"),
    # The gateway refuses forks; allowing their headers lets the page read that refusal.
    *("Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset"),
    *("Producer-Id", "Producer-Epoch", "Producer-Seq"),
    *("traceparent", "tracestate", "baggage"),  # tracing in browsers adds these to every request
)
_ANSWER_HEADERS: Final = (
    "ETag, Location, Retry-After, Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, "
    "Stream-Expires-At, Stream-SSE-Data-Encoding, "
    "Producer-Epoch, Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq"
)

ANSWERS: Final = "/v1/answers/"
"""The beginning of the paths of answer links, which are secrets and need no token."""

_MAX_LOGGED: Final = 100
"""The most origins, and the most headers, that are logged, because callers can invent any number of them."""
_log = structlog.get_logger(__name__)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,255})(:[0-9]{1,5})?")


@lru_cache(maxsize=256)  # called for every request, with few distinct names
def _is_loopback(host: str) -> bool:
    return is_loopback(host if host.endswith("]") else host.rsplit(":", 1)[0])


def _origin(url: str) -> str:
    """Return the origin of a URL, or `none`."""
    try:
        return str(URL(url).origin())
    except ValueError:
        return "none"


class Guard:
    """Checks `Host` and `Origin`, and answers browsers' preflight requests.

    Args:
        settings: The origins that may call, in addition to the server's own, and the headers that their requests may have.
            Without keys for tokens, only a loopback name is accepted as `Host`.
        addresses: Determines the scheme that the caller used.
    """

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        # Pages of the public URL's origin may answer by link, also behind a proxy that hides it.
        self._public = _origin(settings.public_url or "")
        self._origins = check_origins(settings.cors_origins)
        self._logged: set[str] = set()
        allowed = (*_REQUEST_HEADERS, *check_headers(settings.cors_headers))
        self._headers = ", ".join(allowed)
        self._known_headers = frozenset(name.lower() for name in allowed)
        self._logged_headers: set[str] = set()
        self._loopback_only = not settings.asks
        self._addresses = addresses

    def check(self, request: web.Request) -> str | None:
        """Return a request's allowed foreign origin; None if it names none or the gateway's own.

        Raises:
            OriginRefusedError: The request's `Host` or origin is not allowed.
        """
        hosts = request.headers.getall(hdrs.HOST, [])
        host = hosts[0] if hosts else ""
        if len(hosts) > 1 or (host and _HOST.fullmatch(host) is None):
            raise OriginRefusedError(
                f"expected Host to be one name or address, with or without a port, got {', '.join(hosts)[:100]!r}",
                hint="Send the gateway's own name in Host, as HTTP clients do by themselves.",
            )
        if self._loopback_only and not _is_loopback(host):
            raise OriginRefusedError(
                f"expected a loopback name in Host, got {host[:100]!r}",
                hint="Reach the gateway as localhost or 127.0.0.1; with token_secret or token_jwks it accepts every name.",
            )
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            self._check_site(request)
            return None
        if origin == self._own(request) or (origin == self._public and request.path.startswith(ANSWERS)):
            return None
        if origin not in self._origins:
            raise self._refused(request, origin, f"expected one of the configured origins, got {origin[:100]!r}")
        return origin

    def _check_site(self, request: web.Request) -> None:
        """Refuse a request without `Origin` that another site's page made, by an `<img>` or a link.

        Such a page cannot read the answer, but even a read can create a device or a session, or register a workflow. Programs
        other than browsers do not send `Sec-Fetch-Site`.
        """
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site in ("same-origin", "none") or not request.path.startswith("/v1/"):
            return
        if request.method == hdrs.METH_GET and request.path.startswith(ANSWERS):
            return  # a link in an e-mail or a chat: it shows a page, and changes nothing
        if self._referer(request) not in self._origins:
            raise OriginRefusedError(
                f"expected a page of this origin or a configured one, got Sec-Fetch-Site {site[:40]!r} without Origin",
                hint="Call from a page with fetch or EventSource, and add the page's origin to cors_origins.",
            )

    def check_cookie(self, request: web.Request) -> None:
        """Refuse a request with a cookie unless an allowed page made it.

        Browsers add cookies to the requests of any page.

        Browsers omit `Origin` from a page's own GET, so an EventSource is recognized by `Sec-Fetch-Site`, or, if that is
        missing (plain HTTP, old browsers), by `Referer`.

        Raises:
            OriginRefusedError: Another page may have made the request.
        """
        if hdrs.ORIGIN in request.headers:
            self.check(request)
            return
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None:
            if site in ("same-origin", "none"):  # `none`: the user typed the URL
                return
            raise OriginRefusedError(
                f"expected a cookie from a page of this origin, got Sec-Fetch-Site {site[:40]!r}",
                hint="Load the page from the gateway's own origin, or send the token in Authorization or as a ticket.",
            )
        if hdrs.REFERER not in request.headers:
            raise OriginRefusedError(
                "expected Origin, Sec-Fetch-Site or Referer of an allowed page with the cookie, got none of them",
                hint="A server or another program that is no browser sends the token as Authorization: Bearer TOKEN.",
            )
        origin = self._referer(request)
        if origin != self._own(request) and origin not in self._origins:
            raise self._refused(
                request,
                origin,
                f"expected Origin, Sec-Fetch-Site or Referer of an allowed page with the cookie, got {origin[:100]!r}",
            )

    def admit(self, request: web.Request) -> web.Response | None:
        """Return the answer to a preflight request of an allowed page, None for every other request.

        Raises:
            OriginRefusedError: The request's `Host` or origin is not allowed.
        """
        origin = self.check(request)
        if origin is None or request.method != hdrs.METH_OPTIONS:
            return None
        self._log_headers(request, origin)
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: self._headers,
                hdrs.ACCESS_CONTROL_MAX_AGE: "600",
            },
        )

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that let an allowed origin read the answer, streams and errors included."""
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers[hdrs.SERVER] = "wakeline"  # in place of aiohttp's, which lists versions of libraries
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _ANSWER_HEADERS
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)

    def _refused(self, request: web.Request, origin: str, message: str) -> OriginRefusedError:
        """Return the error for a page's origin, with a hint about proxies that hide the own origin."""
        own = self._own(request)
        self._log_refusal(origin, own)
        return OriginRefusedError(
            f"{message}; the gateway's own origin is {own[:100]!r}",
            hint="Add the page's origin to cors_origins. If a proxy serves both the page and the gateway, have it pass Host "
            "and X-Forwarded-Proto on, and name its address in trusted_proxies.",
        )

    def _log_refusal(self, origin: str, own: str) -> None:
        """Log a refused origin once: a browser hides the refusal from the page and its author."""
        if origin in self._logged or len(self._logged) >= _MAX_LOGGED:
            return
        self._logged.add(origin)
        _log.warning(
            "refused a page whose origin cors_origins does not name (logged once for each origin)",
            origin=origin[:100],
            own=own[:100],
        )

    def _log_headers(self, request: web.Request, origin: str) -> None:
        """Log each header that a browser will not send once: it hides from the page which one it is."""
        asked = ",".join(request.headers.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, []))
        for name in (part.strip().lower()[:100] for part in asked.split(",")):
            known = not name or name in self._known_headers or name in self._logged_headers
            if known or len(self._logged_headers) >= _MAX_LOGGED:
                continue
            self._logged_headers.add(name)
            _log.warning(
                "a page's request has a header that cors_headers does not name, so its browser will not send it "
                "(logged once for each header)",
                header=name,
                origin=origin[:100],
            )

    @staticmethod
    def _referer(request: web.Request) -> str:
        """Return the origin of the page that `Referer` names, or `none`."""
        return _origin(request.headers.get(hdrs.REFERER, ""))

    def _own(self, request: web.Request) -> str:
        return f"{self._addresses.scheme(request)}://{request.headers.get(hdrs.HOST, '')}"
