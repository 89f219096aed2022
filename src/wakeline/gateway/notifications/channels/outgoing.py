"""The HTTP client of all channels: one guard, one time-out, no redirects."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, Self

import aiohttp
import msgspec
from aiohttp import hdrs

from wakeline import __version__
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.resolver import Resolver

TIMEOUT: Final = 15.0
"""Seconds in which a receiver must have answered."""

_MOST_READ: Final = 4096  # of an answer's body: its connection can be used again
_MOST_REASON: Final = 120


class Answer(msgspec.Struct, frozen=True):
    """An answer's status and headers.

    Attributes:
        status: The status; 0 if there was no answer.
        reason: The status, or the error, for people.
        abort: Whether the receiver asks not to send the message again (`webhook-delivery: abort-message`).
        retry_after: The seconds that it asks to wait; 0 if it does not.
    """

    status: int
    reason: str
    abort: bool = False
    retry_after: float = 0.0


class Outgoing:
    """Sends requests inside the block.

    Args:
        guard: Decides which addresses may be connected to.
        timeout: Seconds in which a receiver must have answered.
    """

    def __init__(self, guard: AddressGuard, *, timeout: float = TIMEOUT) -> None:
        self._guard = guard
        self._timeout = timeout
        self._client: aiohttp.ClientSession | None = None
        self._others: list[Outgoing] = []

    def guarded(self, guard: AddressGuard) -> Outgoing:
        """Return a client with another guard, for as long as this one; call it before the block."""
        other = Outgoing(guard, timeout=self._timeout)
        self._others.append(other)
        return other

    async def __aenter__(self) -> Self:
        # The socket is made for an address that was resolved, so the address that is checked is the one connected to.
        connector = aiohttp.TCPConnector(
            socket_factory=self._guard.socket, resolver=Resolver(), use_dns_cache=False, limit=0
        )
        self._client = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.USER_AGENT: f"wakeline/{__version__}"},
            auto_decompress=False,
        )
        for other in self._others:
            await other.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for other in self._others:
            await other.__aexit__()
        if self._client is not None:
            await self._client.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a request, and return the answer; an error is an answer without a status."""
        assert self._client is not None
        try:
            async with self._client.post(url, data=body, headers=headers, allow_redirects=False) as response:
                answer = Answer(
                    response.status,
                    str(response.status),
                    abort=response.headers.get("webhook-delivery", "").strip().lower() == "abort-message",
                    retry_after=_seconds(response.headers.get(hdrs.RETRY_AFTER, "")),
                )
                await _read(response)
                return answer
        except TimeoutError:
            return Answer(0, f"no answer in {self._timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(0, _reason(error))


async def _read(response: aiohttp.ClientResponse) -> None:
    """Read the rest of a short answer, for a moment; the connection of any other is closed."""
    try:
        async with asyncio.timeout(1.0):
            await response.content.readexactly(_MOST_READ)
    except asyncio.IncompleteReadError:
        return
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    response.close()


def _reason(error: Exception) -> str:
    """Return an error in a line, without its own text: that may have the receiver's URL."""
    if isinstance(error, aiohttp.ClientConnectorError) and error.strerror:
        return error.strerror[:_MOST_REASON]  # of the resolver or the socket, which know no URL
    kind = type(error).__name__
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{kind}: {error.status}"
    if isinstance(error, OSError) and error.errno:
        return f"{kind}: {os.strerror(error.errno)}"  # aiohttp writes the URL into `strerror`
    return kind


def _seconds(text: str) -> float:
    """Return the seconds of a `Retry-After`, which is a number or a date; 0 for another text."""
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
