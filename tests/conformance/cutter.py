"""A proxy that resets connections at random moments."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.accepting import accepting


class Cutter:
    """What became of the connections through one proxy."""

    def __init__(self, port: int, seed: int, longest: float) -> None:
        self.cuts = 0
        self._port = port
        self._chance = random.Random(seed)
        self._longest = longest

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection both ways, for a random while at most."""
        with suppress(OSError):
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._port)
            directions = [
                asyncio.ensure_future(_forward(reader, behind_writer)),
                asyncio.ensure_future(_forward(behind_reader, writer)),
            ]
            seconds = self._chance.uniform(0.02, self._longest)
            try:
                _, open_still = await asyncio.wait(directions, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                self.cuts += len(open_still) == 2
            finally:
                for direction in directions:
                    direction.cancel()
                behind_writer.transport.abort()
                await asyncio.gather(*directions, return_exceptions=True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def cutter(port: int, *, seed: int, longest: float = 0.6) -> AsyncIterator[tuple[str, Cutter]]:
    """The URL of a proxy in front of a port, and what it does."""
    cutting = Cutter(port, seed, longest)
    async with accepting(cutting.serve) as own:
        yield f"http://127.0.0.1:{own}", cutting
