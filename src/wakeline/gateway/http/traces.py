"""A route that streams the next offset to be written to each connection of a device."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from aiohttp import web

from wakeline.errors import LimitReachedError
from wakeline.events import timestamp
from wakeline.gateway.access import GRANT
from wakeline.gateway.delivery import Channel
from wakeline.gateway.http.devices import device_of
from wakeline.gateway.http.faces import stream
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parts import Parts

_SECONDS: Final = 0.1
"""The pause between two checks of a device: a trace costs the same, however much its device is sent."""

_IDLE: Final = b":\n\n"
_RETRY: Final = 5

MOST: Final = 4
"""The most traces of one device at once: each checks all its connections, of which a device may have hundreds."""


class TraceRoutes(Group):
    """`/v1/sessions/{session}/devices/{device}/trace`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._traces = Counter[tuple[str, str, str]]()

    @route("GET", "/v1/sessions/{session}/devices/{device}/trace", "user", allow_head=False)
    async def trace(self, request: web.Request) -> web.StreamResponse:
        """Stream the next offset of each of a device's connections here, until it has none."""
        session, user, device = device_of(request)
        async with self._parts.hub.attach(session) as channel:
            with self._parts.limits.connection(request, request[GRANT]), self._counted(session, user, device):
                return await stream(self._parts, request, self._changes(channel, user, device))

    @contextmanager
    def _counted(self, session: str, user: str, device: str) -> Iterator[None]:
        """Count a trace of a device inside the block.

        Raises:
            LimitReachedError: The device has as many traces as allowed.
        """
        key = (session, user, device)
        if self._traces[key] >= MOST:
            message = f"expected at most {MOST} traces of device {device!r} at once at a gateway"
            raise LimitReachedError(message, retry_after=_RETRY, hint="Close one of them, or wait until one has ended.")
        self._traces[key] += 1
        try:
            yield
        finally:
            self._traces[key] -= 1
            if not self._traces[key]:
                del self._traces[key]

    async def _changes(self, channel: Channel, user: str, device: str) -> AsyncIterator[bytes]:
        sent: tuple[list[tuple[str, int]], int] | None = None
        idle = 0.0
        while sent is None or (sent[0] and not channel.deleted):
            written = self._parts.positions.written(channel.session, channel.epoch, user, device)
            if (written, channel.tail) != sent:
                sent, idle = (written, channel.tail), 0.0
                connections = [{"transport": transport, "offset": offset} for transport, offset in written]
                frame = {"time": timestamp(), "connections": connections, "end": channel.tail}
                yield b"data: %b\n\n" % msgspec.json.encode(frame)
            elif idle >= self._parts.settings.keep_alive:
                idle = 0.0
                yield _IDLE
            await asyncio.sleep(_SECONDS)
            idle += _SECONDS
