"""A payload codec that calls a codec server, which alone has the key."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import aiohttp
import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec
from yarl import URL

from wakeline.client.closing import Closing
from wakeline.client.errors import CodecError
from wakeline.client.http import LOST
from wakeline.client.inputs import repeated
from wakeline.client.reach import reason
from wakeline.durations import seconds_of
from wakeline.errors import RequestInvalidError, UnavailableError, WakelineError

E = TypeVar("E", bound=WakelineError)

Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]] | Callable[[], Awaitable[Mapping[str, str]]]
"""Headers, or a function that returns them for each request, such as one with a token that expires."""

_GONE: Final = (429, 502, 503, 504)


class _WirePayload(msgspec.Struct):
    metadata: dict[str, bytes] = {}
    data: bytes = b""

    def payload(self) -> Payload:
        return Payload(metadata=self.metadata, data=self.data)


class _WirePayloads(msgspec.Struct):
    payloads: list[_WirePayload]


class RemoteCodec(PayloadCodec, Closing):
    """A codec that sends payloads to a codec server.

        SessionClient(codec=RemoteCodec("https://codec.example", namespace="shop"))

    It uses Temporal's protocol, `POST {url}/decode` and `POST {url}/encode`. Connections are made when they are needed;
    `aclose`, also that of the `SessionClient` that has the codec, closes them. The codec may be used again afterwards, and
    in several event loops at once: each has its own connections.

    Args:
        url: The server's URL; `{namespace}` in it is replaced.
        namespace: The namespace, which is also sent as `X-Namespace`.
        headers: Headers of each request, such as `Authorization`; or a function, plain or async, that returns them.
        timeout: The longest time for one request; 10 s by default.
        retry_timeout: How long a server that cannot be reached is retried; 10 s by default.

    Raises:
        RequestInvalidError: The URL has another scheme than HTTP.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "default",
        headers: Headers | None = None,
        timeout: timedelta = timedelta(seconds=10),
        retry_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestInvalidError(f"expected the URL of a codec server such as https://codec.example, got {url!r}")
        self._url = url.replace("{namespace}", namespace).rstrip("/")
        self._namespace = namespace
        self._headers = headers or {}
        self._timeout = aiohttp.ClientTimeout(total=seconds_of(timeout, "timeout"))
        self._retry_seconds = seconds_of(retry_timeout, "retry_timeout")
        # A worker, the thread of a `SyncSessionPublisher` and that of a `SyncSessionClient` may share a codec.
        self._connections: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encode payloads.

        Raises:
            CodecError: The server refuses, or answers without payloads.
            UnavailableError: The server cannot be reached.
        """
        return await self._ask("encode", payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decode payloads; the errors are those of `encode`."""
        return await self._ask("decode", payloads)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        connections = self._connections.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()

    async def _ask(self, what: str, payloads: Sequence[Payload]) -> list[Payload]:
        body = msgspec.json.encode(
            _WirePayloads([_WirePayload(dict(payload.metadata), payload.data) for payload in payloads])
        )
        ask = partial(self._ask_once, f"{self._url}/{what}", body)
        # A worker's workflow task waits for it: a server that does not answer must not take its time twice.
        return await repeated(ask, self._retry_seconds, since=time.monotonic())

    def _away(self, why: str) -> UnavailableError:
        return self._noted(
            UnavailableError(
                f"the codec server cannot be reached: {why}",
                hint="Check that the codec server runs and that the URL is right, then try again.",
            )
        )

    def _noted(self, error: E) -> E:
        """Return the error with the server's URL in a note: viewers may see the message."""
        error.add_note(f"the codec server: {self._url}")
        return error

    def _of_this_loop(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        connections = self._connections.get(loop)
        if connections is None:
            for ended in [one for one in list(self._connections) if one.is_closed()]:
                self._connections.pop(ended, None)
            connections = self._connections[loop] = aiohttp.ClientSession(timeout=self._timeout)
        return connections

    async def _ask_once(self, url: str, body: bytes) -> list[Payload]:
        headers, path = self._headers, URL(url).path
        if callable(headers):
            given = headers()
            headers = await given if inspect.isawaitable(given) else given
        own = {"Content-Type": "application/json", "X-Namespace": self._namespace}
        try:
            async with self._of_this_loop().post(url, data=body, headers={**own, **headers}) as answer:
                content = await answer.read()
        except LOST as error:
            raise self._away(reason(error)) from None
        if answer.status in _GONE:
            raise self._away(f"it answered {answer.status}")
        if answer.status != 200:
            raise self._noted(
                CodecError(f"expected payloads from the codec server's {path}, got {answer.status}: {content[:200]!r}")
            )
        try:
            return [payload.payload() for payload in msgspec.json.decode(content, type=_WirePayloads).payloads]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"expected payloads from the codec server's {path}, got something else: {error}"
            raise self._noted(CodecError(message)) from error


def read_payload(wire: dict[str, Any]) -> Payload:
    """Return a payload from its JSON form in an event."""
    return msgspec.convert(wire, _WirePayload).payload()
