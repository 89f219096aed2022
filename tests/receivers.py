"""Receivers of webhooks: real servers on 127.0.0.1 that answer as they are told, and keep what came."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import web
from standardwebhooks import Webhook as Verifier

SECRET = "whsec_" + base64.b64encode(b"a secret that only tests have, 32").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"the secret that will come after it").decode()

Answer: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data

    @property
    def offsets(self) -> list[int]:
        return [event["offset"] for event in self.data["events"]]

    def verify(self, secret: str = SECRET) -> None:
        """Raise unless the official library accepts the signature."""
        Verifier(secret).verify(self.body, self.headers)


def status(number: int, **headers: str) -> Answer:
    """Answer with a status."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=number, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def hang(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.sleep(600)
    return web.Response()


async def garbage(request: web.Request) -> web.StreamResponse:
    """Answer with bytes that are no HTTP."""
    assert request.transport is not None
    request.transport.write(b"\x00\xff not HTTP at all\r\n\r\n")
    request.transport.close()
    return web.Response()


async def trickling(request: web.Request) -> web.StreamResponse:
    """Send interim answers that no final one follows."""
    assert request.transport is not None
    while True:
        request.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.05)


async def many_headers(request: web.Request) -> web.StreamResponse:
    """Begin an answer whose headers do not end."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\n")
    while not request.transport.is_closing():
        request.transport.write(b"x: y\r\n" * 1_000)
        await asyncio.sleep(0.01)
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    """Accept the message, with a body that does not end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 1024)
        await asyncio.sleep(0.01)


class Receiver:
    """A receiver; it accepts everything, unless `answers` has something else for the next requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[Received] = []
        self.answers: deque[Answer] = deque()
        self.always: Answer = status(200)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, await request.read()))
        answer = self.answers.popleft() if self.answers else self.always
        return await answer(request)

    async def until(self, count: int) -> list[Received]:
        """Wait until so many requests have come, and return all."""
        async with asyncio.timeout(60):
            while len(self.received) < count:
                await asyncio.sleep(0.01)
        return self.received

    def channel(self, *secrets: str) -> dict[str, Any]:
        """The table of the settings for this receiver."""
        return {"type": "webhook", "url": self.url, "secrets": list(secrets or [SECRET])}


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver inside the block."""
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    found = Receiver("")
    app.router.add_post("/hook", found.handle)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield found
    finally:
        await runner.cleanup()
