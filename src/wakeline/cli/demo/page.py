"""The demo's page: one file, its state as events, and the keys as buttons."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiohttp import web

_TICK_SECONDS: Final = 0.25

# Shows pushes where the browser has a push service, as docs/how-to/web-push.md does.
_WORKER: Final = """
self.addEventListener("push", (event) => {
  const { title, navigate, data, ...rest } = event.data.json().notification;
  event.waitUntil(self.registration.showNotification(title, { ...rest, data: { ...data, navigate } }));
});
self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(self.clients.openWindow(event.notification.data.navigate));
});
"""

Action = Callable[[], Awaitable[None]]


@asynccontextmanager
async def served(routes: Sequence[web.RouteDef], port: int = 0, **how: Any) -> AsyncIterator[str]:
    """Serve routes on this machine while the block runs; yield the URL."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, **how)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Page:
    """Serves the page on loopback.

    Attributes:
        state: Returns the state that the page shows; None until there is one.
        actions: The actions of its buttons, by name.
    """

    def __init__(self) -> None:
        self.state: Callable[[], dict[str, Any]] | None = None
        self.actions: Mapping[str, Action] = {}
        self._html = (files("wakeline.cli.demo") / "page.html").read_text(encoding="utf-8")

    def serve(self, port: int) -> AbstractAsyncContextManager[str]:
        """Serve while the block runs; yield the URL."""
        page, worker = web.get("/", self._page), web.get("/worker.js", self._worker)
        state, act = web.get("/demo/state", self._states), web.post("/demo/actions/{action}", self._act)
        return served([page, worker, state, act], port, handler_cancellation=True)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=self._html, content_type="text/html")

    async def _worker(self, _: web.Request) -> web.Response:
        return web.Response(text=_WORKER, content_type="text/javascript")

    async def _states(self, request: web.Request) -> web.StreamResponse:
        """Send every state that differs from the one before, as a stream of events."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        last = b""
        while True:
            now = msgspec.json.encode(self.state()) if self.state else last
            if now != last:
                await response.write(b"data: %b\n\n" % now)
                last = now
            await asyncio.sleep(_TICK_SECONDS)

    async def _act(self, request: web.Request) -> web.Response:
        # Refuse requests of other web pages that are open in the browser.
        origin = request.headers.get("Origin")
        action = self.actions.get(request.match_info["action"])
        if origin not in (None, f"http://{request.host}") or action is None:
            return web.Response(status=404)
        await action()
        return web.Response(status=204)
