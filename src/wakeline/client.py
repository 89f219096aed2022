"""Reading and writing sessions from Python, over the same HTTP as everybody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from io import BytesIO
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import aiohttp
import msgspec

from wakeline.errors import RequestError
from wakeline.events import Envelope

_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 5.0
_PASSING: Final = frozenset({502, 503, 504})
_envelope = msgspec.json.Decoder(Envelope)


class Received(msgspec.Struct, frozen=True):
    """One event as it arrived.

    Attributes:
        event: The event.
        cursor: Where to resume after it.
        raw: Its JSON object as it came; every device gets the same bytes.
    """

    event: Envelope
    cursor: str
    raw: bytes


class RefusedError(RequestError):
    """The gateway refused a request; `code`, `message` and `hint` are its own."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        details = {key: value for key, value in error.items() if key not in ("code", "message", "hint")}
        super().__init__(error.get("message", f"the gateway answered {status}"), **details)
        self.code = error.get("code", "unknown")  # type: ignore[misc] # what is fixed per class here comes by wire
        self.hint = error.get("hint", "")  # type: ignore[misc] # as above
        self.status = status  # type: ignore[misc] # as above


class SessionClient:
    """A client of one gateway.

    Args:
        url: The gateway's URL, such as `http://127.0.0.1:7777`.
        silence: Seconds without a byte, keep-alives included, after which a stream is taken for dead and resumed.
    """

    def __init__(self, url: str, *, silence: float = 45.0) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the client."""
        self._http = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close its connections."""
        if self._http is not None:
            await self._http.close()

    async def publish(
        self,
        session: str,
        events: Sequence[dict[str, Any]],
        *,
        publisher: str | None = None,
        attempt: int = 1,
        sequence: int = 0,
    ) -> dict[str, Any]:
        """Append a batch; returns when it is durable.

        Args:
            session: The session's name.
            events: `{"topic": …, "data": …}` each.
            publisher: Makes the append idempotent, together with `attempt` and `sequence`.
            attempt: Fencing epoch of the publisher.
            sequence: How many events this publisher has appended before, in this attempt.

        Returns:
            `first_offset`, `next_offset`, `epoch`, `duplicate`.

        Raises:
            RefusedError: The gateway refused it.
            aiohttp.ClientError: The gateway cannot be reached; whether it was appended is unknown.
        """
        headers = {"Content-Type": "application/json"}
        if publisher is not None:
            headers |= {
                "Wakeline-Publisher": publisher,
                "Wakeline-Attempt": str(attempt),
                "Wakeline-Sequence": str(sequence),
            }
        body = BytesIO(msgspec.json.encode({"events": events}))  # a stream: aiohttp sends large bytes in pieces only so
        async with self._client.post(self._events(session), data=body, headers=headers) as answer:
            return await _checked(answer)

    async def state(self, session: str) -> dict[str, Any]:
        """The session's state.

        Raises:
            RefusedError: There is no such session, or it cannot be told now.
        """
        async with self._client.get(f"{self._url}/v1/sessions/{quote(session, safe='')}") as answer:
            return await _checked(answer)

    async def events(
        self,
        session: str,
        *,
        from_: str = "beginning",
        topics: Iterable[str] | None = None,
        until: Literal["settled", "never"] = "never",
    ) -> AsyncIterator[Received]:
        """Every event of a session from a position on, once, in order, through any disconnect.

        A gateway that cannot be reached is tried again, with growing pauses and for ever; break out of the loop to stop.

        Args:
            session: The session's name.
            from_: `beginning`, `now`, or a cursor.
            topics: Only these topics.
            until: `settled`: end when no run of the session is open and everything was delivered.

        Raises:
            RefusedError: The gateway refuses: no such session, or a cursor that is not of this session.
        """
        position = from_
        pause = _FIRST_RETRY
        asked = {"topics": ",".join(topics)} if topics is not None else {}
        while True:
            query = {"from": position, "until": until, **asked}
            try:
                headers = {"Accept": "text/event-stream"}
                async with self._client.get(self._events(session), params=query, headers=headers) as answer:
                    if answer.status == 204:
                        return
                    if answer.status != 200:
                        await _checked(answer)
                    async for cursor, raw in _parse(answer.content):
                        pause, position = _FIRST_RETRY, cursor
                        if raw:
                            yield Received(_envelope.decode(raw), cursor, raw)
            except (aiohttp.ClientError, TimeoutError, RefusedError) as error:
                if isinstance(error, RefusedError) and error.status not in _PASSING:
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LAST_RETRY)

    @property
    def _client(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("expected `async with SessionClient(...)`, the client is not open")
        return self._http

    def _events(self, session: str) -> str:
        return f"{self._url}/v1/sessions/{quote(session, safe='')}/events"


async def _parse(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, bytes]]:
    """Cursors with their event, or with nothing where only the cursor moves on.

    A frame ends with an empty line; what was cut off has none, and does not count.
    """
    held = bytearray()
    async for piece in content.iter_any():
        searched = max(0, len(held) - 1)
        held += piece
        start = 0
        while (end := held.find(b"\n\n", max(start, searched))) >= 0:
            cursor, data = "", b""
            for line in bytes(held[start:end]).split(b"\n"):
                if line.startswith(b"data: "):
                    data = line[6:]
                elif line.startswith(b"id: "):
                    cursor = line[4:].decode()
            start = end + 2
            if cursor:
                yield cursor, data
        del held[:start]


async def _checked(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The answer's JSON.

    Raises:
        RefusedError: The gateway, or something before it, refused.
    """
    body = await answer.read()
    try:
        value = msgspec.json.decode(body, type=dict[str, Any])
        if answer.status == 200:
            return value
        raise RefusedError(answer.status, value["error"])
    except (msgspec.DecodeError, KeyError):
        message = f"expected JSON from the gateway, got {answer.status} with {body[:80]!r}"
        raise RefusedError(answer.status, {"message": message}) from None
