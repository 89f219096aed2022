"""What tests of several folders share."""

from __future__ import annotations

import json
import re
import ssl
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from wakeline.events import Event, NewEvent, compose
from wakeline.gateway.log import Append, Appended, Engine, Publication

TIME = "2026-11-21T05:14:43.123Z"


def new_event(data: Any, topic: str = "t") -> NewEvent:
    return compose(topic, json.dumps(data).encode(), time=TIME)


def batch(
    session: str,
    *data: Any,
    publisher: str | None = None,
    attempt: int = 1,
    sequence: int = 0,
    covers: int | None = None,
    topic: str = "t",
    supersedes: bool = False,
) -> Append:
    publication = Publication(publisher, attempt, sequence, covers, supersedes) if publisher else None
    return Append(session, tuple(new_event(d, topic) for d in data), publication)


async def publish(engine: Engine, session: str, *data: Any, **how: Any) -> Appended:
    return await engine.append(batch(session, *data, **how))


async def close(engine: Engine, session: str) -> Appended:
    return await engine.append(Append(session, (), close=True))


def data_of(event: Event) -> Any:
    return json.loads(event.json())["data"]


async def everything(engine: Engine, session: str) -> list[Event]:
    """A session's whole log, read in small pages."""
    events: list[Event] = []
    while True:
        start = events[-1].offset + 1 if events else 0
        page = await engine.read(session, start, before=1 << 62, limit=7)
        if not page.events:
            return events
        events += page.events


class Served:
    """A running gateway, as a test talks to it: plain HTTP, nothing of Wakeline's own."""

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._context = context
        self._answers: list[aiohttp.ClientResponse] = []

    async def __aenter__(self) -> Self:
        # As many devices as a test wants.
        connector = aiohttp.TCPConnector(limit=0, ssl=self._context or True)
        noting = aiohttp.TraceConfig()
        noting.on_request_end.append(self._note)
        self.http = aiohttp.ClientSession(self.url, read_bufsize=1 << 22, connector=connector, trace_configs=[noting])
        return self

    async def __aexit__(self, *_: object) -> None:
        # Streams and WebSockets: a session that is closed ends their connections, but each of them has to let go of its own.
        for answer in self._answers:
            answer.close()
        await self.http.close()

    async def _note(self, _session: object, _context: object, ended: aiohttp.TraceRequestEndParams) -> None:
        self._answers = [*(answer for answer in self._answers if not answer.closed), ended.response]

    async def call(self, method: str, path: str, **how: Any) -> tuple[int, Any]:
        """Status and JSON of one request; `path` is already encoded."""
        async with self.http.request(method, URL(path, encoded=True), **how) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 if there are none."""
        async with self.http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        found = [line for line in lines if re.match(rf"{name}[{{ ]", line) and all(label in line for label in wanted)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    async def publish(self, session: str, *events: dict[str, Any], **headers: str) -> dict[str, Any]:
        named = {f"Wakeline-{key.title()}": value for key, value in headers.items()}
        path = f"/v1/sessions/{quote(session, safe='')}/events"
        status, answer = await self.call("POST", path, json={"events": list(events)}, headers=named)
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def stream(self, session: str, query: str = "", **headers: str) -> Stream:
        path = f"/v1/sessions/{quote(session, safe='')}/events?{query}"
        answer = await self.http.get(
            URL(path, encoded=True),
            headers={"Accept": "text/event-stream", **headers},
            timeout=aiohttp.ClientTimeout(90),
        )
        return Stream(answer)


class Stream:
    """An open event stream, read frame by frame."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last_id = ""

    async def lines(self) -> list[bytes]:
        """The next frame: the lines up to an empty one. Empty at the end of the stream."""
        lines: list[bytes] = []
        async for line in self.answer.content:
            if line == b"\n":
                return lines
            lines.append(line.rstrip(b"\n"))
        return lines

    async def next(self) -> dict[str, Any]:
        """The next event; comments and bare ids are passed over."""
        assert self.answer.status == 200, f"expected a stream, got {self.answer.status} {await self.answer.text()}"
        while True:
            lines = await self.lines()
            assert lines, "expected an event, the stream ended"
            fields = dict(line.split(b": ", 1) for line in lines if not line.startswith(b":"))
            self.last_id = fields.get(b"id", self.last_id.encode()).decode()
            if b"data" in fields:
                event: dict[str, Any] = json.loads(fields[b"data"])
                return event

    async def take(self, count: int) -> list[dict[str, Any]]:
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[dict[str, Any]]:
        """Everything up to the end of the stream."""
        events: list[dict[str, Any]] = []
        while lines := await self.lines():
            fields = dict(line.split(b": ", 1) for line in lines if not line.startswith(b":"))
            self.last_id = fields.get(b"id", self.last_id.encode()).decode()
            if b"data" in fields:
                events.append(json.loads(fields[b"data"]))
        return events

    def close(self) -> None:
        self.answer.close()
