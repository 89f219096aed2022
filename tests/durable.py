"""Durable Streams as a test speaks it: plain HTTP, nothing of Wakeline's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from tests.support import Served

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}
BYTES = {"Content-Type": "application/octet-stream"}
CLOSED = {"Stream-Closed": "true"}


class Answer:
    """An answer, read to its end."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]["code"]

    @property
    def next(self) -> str:
        return self.headers["Stream-Next-Offset"]


class Durable:
    """One stream of a gateway."""

    def __init__(self, served: Served, name: str = "s", /, **headers: str) -> None:
        self._served = served
        self.path = f"/v1/stream/{name}"
        self._headers = headers

    async def call(self, method: str, query: str = "", body: Any = None, /, **headers: str) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with self._served.http.request(
            method,
            URL(f"{self.path}{query}", encoded=True),
            data=data,
            headers={**self._headers, **headers},
            skip_auto_headers=["Content-Type"],
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def put(self, form: Mapping[str, str] = JSON, body: Any = None, /, **more: str) -> Answer:
        return await self.call("PUT", "", body, **{**form, **more})

    async def post(self, body: Any = None, form: Mapping[str, str] = JSON, /, **more: str) -> Answer:
        return await self.call("POST", "", body, **{**form, **more})

    async def get(self, query: str = "", /, **headers: str) -> Answer:
        return await self.call("GET", query, **headers)

    async def head(self) -> Answer:
        return await self.call("HEAD")

    async def delete(self) -> Answer:
        return await self.call("DELETE")

    async def live(self, query: str = "?offset=-1&live=sse", /, **headers: str) -> Live:
        answer = await self._served.http.get(
            URL(f"{self.path}{query}", encoded=True),
            headers={**self._headers, **headers},
            timeout=aiohttp.ClientTimeout(90),
        )
        return Live(answer)


class Live:
    """A live reader, frame by frame, as the standard for event streams has it."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last_id = ""

    async def frame(self) -> tuple[str, str] | None:
        """The next event and its data; None at the end. Comments and what has no data are passed over."""
        event = "message"
        data: list[str] = []
        async for line in self.answer.content:
            text = line.decode().rstrip("\n")
            if not text and data:
                return event, "\n".join(data)
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.last_id = value
        return None

    async def control(self) -> dict[str, Any]:
        """The next `control` event."""
        frame = await self.frame()
        assert frame is not None
        event, data = frame
        assert event == "control", frame
        told: dict[str, Any] = json.loads(data)
        return told

    async def data(self) -> str:
        """The data of the next event, which is `data`."""
        frame = await self.frame()
        assert frame is not None
        event, data = frame
        assert event == "data", frame
        return data

    def close(self) -> None:
        self.answer.close()
