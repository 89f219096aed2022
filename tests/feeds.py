"""Clients of the feed for tests: one over aiohttp's WebSocket, one over a raw socket that may send anything."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from yarl import URL

from tests.connecting import connecting
from tests.support import Served

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: close with a reset, as a device does that lost its network."""


class Feed:
    """An open feed; every frame that comes is kept in `frames`."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket_
        self.frames: list[dict[str, Any]] = []

    async def send(self, kind: str, session: str | None = None, **fields: Any) -> None:
        named = {} if session is None else {"session": session}
        await self.socket.send_json(
            {"type": kind, **named, **{key.rstrip("_"): value for key, value in fields.items()}}
        )

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        """The next frame; it must be of that kind."""
        message = await asyncio.wait_for(self.socket.receive(), 60)
        assert message.type is aiohttp.WSMsgType.TEXT, f"expected {kind or 'a frame'}, got {message}"
        frame: dict[str, Any] = json.loads(message.data)
        self.frames.append(frame)
        assert kind in (None, frame["type"]), f"expected {kind}, got {frame}"
        return frame

    async def subscribe(self, session: str, **fields: Any) -> dict[str, Any]:
        """Subscribe, and wait for the answer."""
        await self.send("subscribe", session, **fields)
        return await self.next("subscribed")

    async def events(self, count: int, session: str | None = None) -> list[dict[str, Any]]:
        """So many events, of one session or of any."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            frame = await self.next("events")
            if session in (None, frame["session"]):
                found += frame["events"]
        assert len(found) == count, found
        return found

    async def error(self) -> str:
        """The code of the error that comes next."""
        code: str = (await self.next("error"))["error"]["code"]
        return code

    async def closed(self) -> int | None:
        """The code with which the gateway closes; frames before that are passed over."""
        async with asyncio.timeout(60):
            while True:
                message = await self.socket.receive()
                if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                    return self.socket.close_code
                assert message.type is aiohttp.WSMsgType.TEXT, message


@asynccontextmanager
async def feed(served: Served, query: str = "", *, ready: bool = True, **how: Any) -> AsyncIterator[Feed]:
    """Open a feed and take its `ready`."""
    async with served.http.ws_connect(URL(f"/v1/feed{query}", encoded=True), **how) as opened:
        client = Feed(opened)
        if ready:
            await client.next("ready")
        yield client


class Raw:
    """A WebSocket by hand: whatever bytes a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, payload: bytes, kind: int = TEXT, *, fin: bool = True, mask: bool = True) -> None:
        self.writer.write(frame(payload, kind, fin=fin, mask=mask))

    def send_json(self, value: Any) -> None:
        self.send(json.dumps(value).encode())

    async def next(self) -> tuple[int, bytes]:
        """The next frame's kind and payload."""
        async with asyncio.timeout(60):
            first, size = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "expected one whole frame without extensions"
            assert size < 128, "expected no mask from a server"
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def next_json(self) -> Any:
        kind, payload = await self.next()
        assert kind == TEXT, (kind, payload)
        return json.loads(payload)

    async def closed(self) -> tuple[int, str]:
        """Code and reason with which the gateway closes, other frames passed over."""
        while True:
            kind, payload = await self.next()
            if kind == CLOSE:
                return int.from_bytes(payload[:2]), payload[2:].decode()

    async def rest(self) -> list[int]:
        """The kinds of all frames up to the end of the connection."""
        kinds: list[int] = []
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kinds.append((await self.next())[0])
        return kinds

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()


def frame(payload: bytes, kind: int = TEXT, *, fin: bool = True, mask: bool = True) -> bytes:
    """A frame as a client sends it."""
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        head = bytes((kind | 0x80 * fin, bit | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", kind | 0x80 * fin, bit | 126, size)
    else:
        head = struct.pack("!BBQ", kind | 0x80 * fin, bit | 127, size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    repeated = int.from_bytes((key * (size // 4 + 1))[:size])
    return head + key + (int.from_bytes(payload) ^ repeated).to_bytes(size)


def handshake(host: str, query: str = "", **headers: str) -> bytes:
    """The request for the upgrade."""
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET /v1/feed{query} HTTP/1.1\r\n{lines}\r\n".encode()


@asynccontextmanager
async def raw(
    url: str, query: str = "", *, ready: bool = True, limit: int = 1 << 16, **headers: str
) -> AsyncIterator[Raw]:
    """Open a feed by hand."""
    host, port = url.removeprefix("http://").split(":")
    async with connecting(host, port, limit=limit) as (reader, writer):
        writer.write(handshake(host, query, **headers))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 101 "), head
        client = Raw(reader, writer)
        if ready:
            assert (await client.next_json())["type"] == "ready"
        yield client
