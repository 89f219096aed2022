"""A client of `/v1/publish` for tests, over aiohttp's WebSocket alone."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support import Served


class Line:
    """An open connection; frames are read one at a time, however they came."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._come: deque[dict[str, Any]] = deque()

    async def send(self, *frames: dict[str, Any]) -> None:
        """Send frames in one message."""
        await self.socket.send_str("\n".join(json.dumps(frame) for frame in frames))

    async def open(self, channel: int = 1, **fields: Any) -> dict[str, Any]:
        """Open a channel, and wait for the answer."""
        await self.send({"type": "open", "channel": channel, "session": "s", "publisher": "p", **fields})
        return await self.next("opened")

    async def append(self, *data: Any, channel: int = 1, sequence: int = 0) -> None:
        events = [{"topic": "t", "data": one} for one in data]
        await self.send({"type": "append", "channel": channel, "sequence": sequence, "events": events})

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        """The next frame; it must be of that kind."""
        while not self._come:
            message = await asyncio.wait_for(self.socket.receive(), 60)
            assert message.type is aiohttp.WSMsgType.TEXT, f"expected {kind or 'a frame'}, got {message}"
            self._come += [json.loads(line) for line in message.data.split("\n")]
        frame = self._come.popleft()
        assert kind in (None, frame["type"]), f"expected {kind}, got {frame}"
        return frame

    async def error(self) -> str:
        """The code of the error that comes next."""
        code: str = (await self.next("error"))["error"]["code"]
        return code

    async def closed(self) -> int | None:
        """The code with which the gateway closes."""
        message = await asyncio.wait_for(self.socket.receive(), 60)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), message
        return self.socket.close_code


@asynccontextmanager
async def line(served: Served, **how: Any) -> AsyncIterator[Line]:
    """Open a connection and take its `ready`."""
    async with served.http.ws_connect("/v1/publish", **how) as opened:
        client = Line(opened)
        await client.next("ready")
        yield client
