"""The inspector: one page at `/`, which calls the public API and nothing else."""

from __future__ import annotations

import base64
import gzip
import re
from functools import cached_property
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Final, NamedTuple

import msgspec
from aiohttp import hdrs, web
from yarl import URL

from wakeline.gateway.http.group import Group, route
from wakeline.gateway.settings import Settings

_SETTINGS: Final = '<meta name="wakeline-settings" content="{}">'


class _Page(NamedTuple):
    body: bytes
    packed: bytes
    headers: dict[str, str]


class InspectorRoutes(Group):
    """`/`."""

    @cached_property
    def _page(self) -> _Page:
        """The page, made for its first reader."""
        page = page_of(self._parts.settings)
        body = page.encode()
        headers = {
            hdrs.CACHE_CONTROL: "no-cache",
            hdrs.ETAG: f'"{sha256(body).hexdigest()[:32]}"',
            hdrs.VARY: hdrs.ACCEPT_ENCODING,
            "Content-Security-Policy": policy(page, self._parts.settings),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
        }
        return _Page(body, gzip.compress(body, 6, mtime=0), headers)

    @route("GET", "/")
    async def inspector(self, request: web.Request) -> web.Response:
        """Return the page."""
        page = self._page
        if request.headers.get(hdrs.IF_NONE_MATCH) == page.headers[hdrs.ETAG]:
            return web.Response(status=304, headers=page.headers)
        packs = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")
        headers = dict(page.headers)
        if packs:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        body = page.packed if packs else page.body
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)


def page_of(settings: Settings) -> str:
    """Return the page with those settings that it reads."""
    page = (files("wakeline.gateway.http") / "inspector.html").read_text(encoding="utf-8")
    shown = {"temporal_ui": settings.temporal_ui, "codec_server": settings.codec_server}
    text = escape(msgspec.json.encode(shown).decode())
    return page.replace(_SETTINGS, _SETTINGS.replace("{}", text))


def policy(page: str, settings: Settings) -> str:
    """Return the page's Content-Security-Policy.

    It runs the page's own script and no other, also if an event's data came to be read as HTML by a defect of the page.
    """
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    codec = f" {URL(settings.codec_server).origin()}" if settings.codec_server else ""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'sha256-{_digest(script)}'",
            f"style-src 'sha256-{_digest(style)}'",
            f"connect-src 'self'{codec}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _digest(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()
