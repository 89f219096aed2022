"""The inspector's page in Chromium, and the gateway that serves it."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from playwright.async_api import Page

from tests.receivers import receiver, status
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from wakeline.gateway.app import gateway
from wakeline.gateway.rules import Notify
from wakeline.gateway.settings import Settings


@asynccontextmanager
async def codec_server() -> AsyncIterator[str]:
    """A codec server whose encryption is the letters backwards; pages of every origin may call it."""
    allow = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "content-type,x-namespace"}

    async def decode(request: web.Request) -> web.Response:
        if request.method == "OPTIONS":
            return web.Response(headers=allow)
        (payload,) = (await request.json())["payloads"]
        data = base64.b64encode(base64.b64decode(payload["data"])[::-1]).decode()
        plain = {"metadata": {"encoding": base64.b64encode(b"json/plain").decode()}, "data": data}
        return web.json_response({"payloads": [plain]}, headers=allow)

    application = web.Application()
    application.router.add_route("*", "/codec/decode", decode)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/codec"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def inspected() -> AsyncIterator[Served]:
    """A gateway that asks for tokens, with a codec server and a channel that fails."""
    async with receiver() as hook, codec_server() as codec:
        hook.always = status(500)
        settings = Settings(
            port=0,
            engine="memory",
            token_secret=SECRET,
            codec_server=codec,
            temporal_ui="https://temporal.example/namespaces/orders",
            notify={"late": Notify(topics=("late",), users=("bob",), grace=0)},
            channels={"ops": hook.channel()},
            outgoing_networks=("127.0.0.1",),
        )
        async with gateway(settings) as url, Served(url) as made:
            made.http.headers.update(bearer(exp=time.time() + 3600))
            yield made


class Tab:
    """The tab, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _note(self, message: Any) -> None:
        # A refused request is no fault of the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    async def open(self, hash_: str = "", *, sign_in: bool = True, claims: dict[str, Any] | None = None) -> Page:
        await self.page.goto("about:blank")
        await self.page.goto(f"{self.url}/{hash_}")
        if sign_in:
            await self.page.get_by_label("Token").fill(token(**{"exp": time.time() + 600, **(claims or {})}))
            await self.page.get_by_role("button", name="Sign in").click()
        return self.page


async def order(served: Served, name: str) -> None:
    """A session whose activity failed once."""
    how = {"run": "r", "activity": "write", "publisher": "r:write", "sequence": "0"}
    piece = {"topic": "answer", "message": {"id": "m", "op": "text"}}
    await served.publish(name, {**piece, "data": "Dear cust"}, {**piece, "data": "o"}, attempt="1", **how)
    await served.publish(name, {**piece, "data": "Dear "}, {**piece, "data": "customer"}, attempt="2", **how)
    await served.publish(name, {"topic": "status", "key": "order", "data": {"state": "packed"}})
