"""A load balancer for TCP, as it stands before several gateways: it sends new connections to those that say they are ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

import aiohttp

from tests.accepting import accepting

_CHECK_SECONDS = 0.1


class Balancer:
    """Sends each connection to the next gateway that was ready a moment ago, and could be reached.

    Args:
        ports: The ports of the gateways, on loopback.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._ready = set(ports)
        self._turns = count()
        self.url = ""

    async def check(self) -> None:
        """Ask the gateways again and again whether they are ready."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as http:
            while True:
                for port in self._ports:
                    ready = False
                    with suppress(aiohttp.ClientError, TimeoutError):
                        async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                            ready = answer.status == 200
                    (self._ready.add if ready else self._ready.discard)(port)
                await asyncio.sleep(_CHECK_SECONDS)

    async def until_all_ready(self) -> None:
        """Return when new connections go to every gateway: a deployment restarts the next one no earlier."""
        while self._ready != set(self._ports):
            await asyncio.sleep(_CHECK_SECONDS / 5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        turn = next(self._turns)
        ports = sorted(self._ready)
        for place in range(len(ports)):
            try:
                ends = await asyncio.open_connection("127.0.0.1", ports[(turn + place) % len(ports)])
            except OSError:
                continue
            try:
                await asyncio.gather(_pass_on(reader, ends[1]), _pass_on(ends[0], writer))
            finally:
                await _cut(ends[1])
            return


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()


async def _cut(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def balancer(ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """A balancer that runs as long as the block lasts."""
    one = Balancer(ports)
    checking = asyncio.create_task(one.check())
    try:
        async with accepting(one.serve) as port:
            one.url = f"http://127.0.0.1:{port}"
            yield one
    finally:
        checking.cancel()
        await asyncio.wait([checking])
