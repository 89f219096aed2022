"""A phone that sleeps: it is not connected to the gateway, and a webhook wakes it.

A real one is woken by its push service, with the channel `web_push` or by the team's own program behind the webhook.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from typing import Any, Self

from aiohttp import ClientSession, web


class Phone:
    """Waits for a notification, and answers.

    Attributes:
        secret: Signs the notifications.
        url: Where it is notified.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._notified: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._known: set[str] = set()
        self.secret = f"whsec_{base64.b64encode(self._key).decode()}"
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/", self._notify)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def notified(self) -> dict[str, Any]:
        """Return the event of the next notification."""
        return await self._notified.get()

    async def answer(self, url: str, token: str, session: str, request: str, payload: str) -> None:
        """Answer a request; a phone that receives no response sends the same again."""
        async with ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            path = f"{url}/v1/sessions/{session}/requests/{request}"
            async with http.post(path, json={"payload": payload, "device": "phone"}) as response:
                response.raise_for_status()

    async def _notify(self, request: web.Request) -> web.Response:
        body, key = await request.read(), request.headers["webhook-id"]
        signed = f"{key}.{request.headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        if f"v1,{signature}" not in request.headers["webhook-signature"].split():
            return web.Response(status=401)
        if key not in self._known:  # the same notification may come twice
            self._known.add(key)
            for event in (await request.json())["data"]["events"]:
                self._notified.put_nowait(event)
        return web.Response(status=204)
