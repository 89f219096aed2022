"""Readers of a session over raw sockets, one for each transport, that can be cut at any byte and go on.

Each holds only what its protocol tells a client to hold: a cursor. Nothing here is Wakeline's own client.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from urllib.parse import quote


class CutError(Exception):
    """The connection was cut."""


class Wire:
    """A connection that is reset after a number of bytes of answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int) -> None:
        self._reader = reader
        self._writer = writer
        self._budget = budget
        self._held = bytearray()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def _more(self) -> None:
        if self._budget <= 0:
            raise CutError
        piece = await self._reader.read(self._budget)
        if not piece:
            raise CutError
        self._budget -= len(piece)
        self._held += piece

    async def until(self, mark: bytes) -> bytes:
        while (end := self._held.find(mark)) < 0:
            await self._more()
        taken = bytes(self._held[:end])
        del self._held[: end + len(mark)]
        return taken

    async def exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            await self._more()
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    async def head(self, status: int = 200) -> dict[str, str]:
        lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        assert lines[0].startswith(f"HTTP/1.1 {status} "), lines
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}

    async def frames(self) -> AsyncIterator[dict[str, str]]:
        """Frames of a chunked event stream. One that did not come whole does not count, as the standard has it."""
        held = b""
        while size := int(await self.until(b"\r\n"), 16):
            # Not only whole chunks: a browser sees a frame as soon as its bytes are there.
            for _ in range(size):
                held += await self.exactly(1)
                if held.endswith(b"\n\n"):
                    yield _fields(held)
                    held = b""
            await self.exactly(2)


def _fields(frame: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in frame.decode().split("\n"):
        name, _, value = line.partition(":")
        if name:
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
    return fields


class Reader(ABC):
    """Reads one session, and remembers where it is."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.events: list[str] = []

    @abstractmethod
    async def read(self, wire: Wire) -> None:
        """Ask from where it stands, and take what comes; returns or is cut."""

    def get(self, path: str, **headers: str) -> bytes:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()


class Sse(Reader):
    """What a browser's EventSource does."""

    last_id = ""

    async def read(self, wire: Wire) -> None:
        headers = {"Last_Event_ID": self.last_id} if self.last_id else {}
        path = f"/v1/sessions/{quote(self.session, safe='')}/events"
        wire.send(self.get(path, Accept="text/event-stream", **headers))
        await wire.head()
        async for frame in wire.frames():
            self.last_id = frame.get("id", self.last_id)
            if "data" in frame:
                self.events.append(frame["data"])


class LongPoll(Reader):
    """Pages, a few events each."""

    cursor = "beginning"

    async def read(self, wire: Wire) -> None:
        while True:
            path = f"/v1/sessions/{quote(self.session, safe='')}/events?limit=7&wait=5&from={self.cursor}"
            wire.send(self.get(path))
            body = await wire.exactly(int((await wire.head())["content-length"]))
            page = json.loads(body)
            # The bytes of the events, not what a parser made of them.
            inner = body[len(b'{"events":[') : body.index(b'],"from":')].decode()
            self.events += split_objects(inner)
            self.cursor = page["cursor"]


class FeedSse(Reader):
    """Two sessions on one stream; the other one must not disturb."""

    last_id = ""
    other = "other"

    async def read(self, wire: Wire) -> None:
        headers = {"Last_Event_ID": self.last_id} if self.last_id else {}
        path = f"/v1/feed?session={quote(self.session, safe='')}&session={self.other}"
        wire.send(self.get(path, Accept="text/event-stream", **headers))
        await wire.head()
        async for frame in wire.frames():
            self.last_id = frame.get("id", self.last_id)
            if "data" in frame and frame.get("event", "message") == "message":
                prefix = json.dumps({"session": self.session}, ensure_ascii=False, separators=(",", ":"))[:-1]
                if frame["data"].startswith(prefix):
                    self.events.append(frame["data"][len(prefix) + len(',"event":') : -1])


class WebSocket(Reader):
    """A feed as WebSocket, with both sessions subscribed."""

    cursor = "beginning"
    other = "other"

    async def read(self, wire: Wire) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        wire.send(
            self.get(
                "/v1/feed", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13", Sec_WebSocket_Key=key
            )
        )
        await wire.head(101)
        for session, start in ((self.other, "beginning"), (self.session, self.cursor)):
            wire.send(masked(json.dumps({"type": "subscribe", "session": session, "from": start}).encode()))
        while True:
            first, size = await wire.exactly(2)
            assert first & 0x80, "expected a whole message in a frame"
            length = size if size < 126 else int.from_bytes(await wire.exactly(2 if size == 126 else 8))
            payload = await wire.exactly(length)
            if first & 0x0F != 1:
                continue
            message = json.loads(payload)
            if message["type"] == "events" and message["session"] == self.session:
                first = payload.index(b'"events":[') + len(b'"events":[')
                self.events += split_objects(payload[first : payload.rindex(b'],"cursor"')].decode())
                self.cursor = message["cursor"]


class DurablePoll(Reader):
    """A Durable Streams client that polls."""

    offset = "-1"

    async def read(self, wire: Wire) -> None:
        while True:
            wire.send(self.get(f"/v1/stream/{quote(self.session, safe='')}?live=long-poll&offset={self.offset}"))
            head = (await wire.until(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:])}
            if head[0].split()[1] == "200":
                self.events += split_objects((await wire.exactly(int(headers["content-length"])))[1:-1].decode())
            self.offset = headers["stream-next-offset"]


class DurableSse(Reader):
    """A Durable Streams client on a stream, which resumes as an EventSource does."""

    last_id = ""

    async def read(self, wire: Wire) -> None:
        headers = {"Last_Event_ID": self.last_id} if self.last_id else {}
        wire.send(self.get(f"/v1/stream/{quote(self.session, safe='')}?live=sse&offset=-1", **headers))
        await wire.head()
        async for frame in wire.frames():
            self.last_id = frame.get("id", self.last_id)
            if frame.get("event") == "data":
                self.events += split_objects(frame["data"].strip()[1:-1].strip())


def masked(payload: bytes) -> bytes:
    """A text frame as a client sends it."""
    mask = os.urandom(4)
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2)
    return b"\x81" + length + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def split_objects(text: str) -> list[str]:
    """The texts of the objects in a JSON array without its brackets."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = end + 1  # the comma
        while at < len(text) and text[at].isspace():
            at += 1
    return found
