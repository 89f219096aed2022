"""A gateway that keeps what it takes, and goes wrong as it is told: for what a real one never does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web

from wakeline.cli.processes import free_port
from wakeline.publisher import SessionPublisher

Frame: TypeAlias = dict[str, Any]
Answer: TypeAlias = list[Frame] | None
"""What to say to a frame; None closes the connection without a word."""
RIGHTLY: list[Frame] = [{"type": "what a real gateway says"}]


def error(channel: int, code: str, **details: Any) -> Frame:
    told = {"code": code, "message": f"says {code}", "hint": "Do.", **details}
    return {"type": "error", "channel": channel, "error": told}


class ScriptedGateway:
    """Speaks `/v1/publish` over a log in memory.

    Attributes:
        script: Is asked about each frame first; it may answer itself, or say RIGHTLY, and the frame is treated rightly.
        log: Each publisher's events, by session, publisher and attempt.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.script: Callable[[Frame], Answer] = lambda _: RIGHTLY
        self.log: dict[tuple[str, str, int], list[Frame]] = {}
        self.frames: list[Frame] = []
        self.messages: list[int] = []
        self.connections = 0
        self.status = 101
        self.close_with: int | None = None
        self.code = "not_allowed"
        self.tokens: list[str | None] = []
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None

    def events(self, session: str = "s") -> list[Any]:
        """The data of all events of a session, publisher by publisher."""
        return [event["data"] for (name, _, _), events in self.log.items() if name == session for event in events]

    def appends(self) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == "append"]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/publish", self._publish)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._site.stop()
            await self.cut()
            await self._runner.cleanup()
            self._runner = None

    async def cut(self) -> None:
        """Every connection, without a word."""
        cut = set(self._sockets)
        for socket in cut:
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()
        while self._sockets & cut:
            await asyncio.sleep(0.001)

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        if self.status != 101:
            told = {"code": self.code, "message": "says no", "hint": "Do."}
            return web.json_response({"error": told}, status=self.status)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self.connections += 1
        self._sockets.add(socket)
        channels: dict[int, tuple[str, str, int]] = {}
        try:
            await socket.send_json({"type": "ready"})
            if self.close_with is not None:
                await socket.receive()
                await socket.close(code=self.close_with)
            async for message in socket:
                frames = [json.loads(line) for line in message.data.split("\n")]
                self.messages.append(len(frames))
                for frame in frames:
                    self.frames.append(frame)
                    answer = self.script(frame)
                    if answer is RIGHTLY:
                        answer = self._answer(channels, frame)
                    if answer is None:
                        transport = request.transport
                        assert transport is not None
                        transport.abort()
                        return socket
                    for told in answer:
                        await socket.send_json(told)
        except ConnectionError:
            pass
        finally:
            self._sockets.discard(socket)
        return socket

    def append(self, frame: Frame, key: tuple[str, str, int] | None = None) -> int:
        """Do what a frame says; the next sequence."""
        key = key or next(iter(self.log))
        log = self.log.setdefault(key, [])
        there = len(log) - frame["sequence"]
        assert there >= 0, "a gap"
        log += frame["events"][there:]
        return len(log)

    def _answer(self, channels: dict[int, tuple[str, str, int]], frame: Frame) -> Answer:
        channel = frame.get("channel", 0)
        match frame["type"]:
            case "open":
                key = (frame["session"], frame["publisher"], frame.get("attempt", 1))
                channels[channel] = key
                reached = len(self.log.setdefault(key, []))
                earlier = sum(len(events) for (s, p, a), events in self.log.items() if (s, p) == key[:2] and a < key[2])
                opened = {"type": "opened", "channel": channel, "attempt": key[2], "epoch": "e"}
                return [{**opened, "next_sequence": reached, "earlier_events": earlier}]
            case "append":
                reached = self.append(frame, channels[channel])
                return [{"type": "appended", "channel": channel, "next_sequence": reached, "next_offset": reached}]
            case _:
                return []


@asynccontextmanager
async def scripted() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def spooling(gateway: ScriptedGateway, file: Path, session: str = "s", **options: Any) -> SessionPublisher:
    """A publisher that spools what the gateway does not take now."""
    return SessionPublisher(gateway.url, session=session, on_unavailable="spool", spool=file, **options)
