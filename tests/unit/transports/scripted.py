"""A server that answers each request as it is told: for what a real gateway never does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiohttp import web

EPOCH = "aaaaaaaaaa"


def frame(offset: int, data: Any = None, *, topic: str = "t", cursor: str | None = None, **fields: Any) -> bytes:
    """An event as the gateway writes it."""
    event = {"offset": offset, "topic": topic, "time": "2026-11-21T05:14:43.123Z", "data": data, **fields}
    return f"id: {cursor or f'{EPOCH}-{offset + 1}'}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def opening(offset: int, epoch: str = EPOCH) -> bytes:
    return f": wakeline\nretry: 1000\nid: {epoch}-{offset}\n\n".encode()


def refused(status: int, code: str, **details: Any) -> web.Response:
    error = {"code": code, "message": f"says {code}", "hint": "Do.", **details}
    return web.json_response({"error": error}, status=status)


Answer: TypeAlias = bytes | web.Response | Callable[[web.Request], Awaitable[web.StreamResponse]]


async def silence(request: web.Request) -> web.StreamResponse:
    """A stream that begins and then says nothing."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(opening(0) + frame(0))
    await asyncio.sleep(30)
    return response


class Scripted:
    """Answers the n-th request with the n-th of `answers`: bytes are a whole event stream; the last one is repeated."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.url = ""

    @property
    def asked(self) -> list[str]:
        """Where each request wanted to begin."""
        return [request.query["from"] for request in self.requests]

    @property
    def tokens(self) -> list[str | None]:
        return [request.headers.get("Authorization") for request in self.requests]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if callable(answer):
            return await answer(request)
        return web.Response(body=answer, headers={"Content-Type": "text/event-stream"})


@asynccontextmanager
async def scripted(*answers: Answer) -> AsyncIterator[Scripted]:
    server = Scripted(answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
