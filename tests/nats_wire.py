"""A proxy between a gateway and NATS that cuts connections around writes, and drops messages that were published again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.accepting import accepting

_WITH_PAYLOAD = (b"PUB", b"HPUB", b"MSG", b"HMSG")


class Wire:
    """What passes between a gateway and a server.

    Attributes:
        answers_cut: So many writes reach the server, and the connection is cut before their answers pass.
        writes_cut: So many writes do not reach the server: the connection is cut before them.
        live: Returns whether the next message that was published again passes.
        away: Whether new connections are refused.
        cuts: How many connections were cut.
    """

    def __init__(self, port: int) -> None:
        self.answers_cut = 0
        self.writes_cut = 0
        self.live: Callable[[], bool] = lambda: True
        self.away = False
        self.cuts = 0
        self.port = 0
        self._server_port = port
        self._writers: set[asyncio.StreamWriter] = set()

    def address(self, address: str) -> str:
        """The address of a store through this proxy."""
        parts = urlsplit(address)
        return parts._replace(netloc=parts.netloc.replace(f":{self._server_port}", f":{self.port}")).geturl()

    def cut_all(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            return
        one = _Connection(self)
        self._writers |= {writer, server_writer}
        try:
            await asyncio.gather(
                _pass(reader, server_writer, one.from_client), _pass(server_reader, writer, one.from_server)
            )
        except _CutError:
            self.cuts += 1
        finally:
            self._writers -= {writer, server_writer}
            server_writer.transport.abort()


class _CutError(Exception):
    """The connection ends here."""


class _Connection:
    """One connection."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._cut_at: bytes | None = None

    def from_client(self, line: list[bytes]) -> bool:
        if line[0] == b"HPUB" and not line[1].startswith(b"$"):
            if self._wire.writes_cut:
                self._wire.writes_cut -= 1
                raise _CutError
            if self._wire.answers_cut:
                self._wire.answers_cut -= 1
                self._cut_at = line[2]
        return True

    def from_server(self, line: list[bytes]) -> bool:
        if line[0] in (b"MSG", b"HMSG"):
            if line[1] == self._cut_at:
                raise _CutError
            if b".live." in line[1]:
                return self._wire.live()
        return True


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[list[bytes]], bool]
) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            line = await reader.readuntil(b"\r\n")
            parts = line.split()
            size = int(parts[-1]) + 2 if parts and parts[0].upper() in _WITH_PAYLOAD else 0
            payload = await reader.readexactly(size)
            if not parts or passes(parts):
                writer.write(line + payload)
                await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """A proxy to the server on a port of loopback."""
    wire = Wire(port)
    async with accepting(wire.serve, limit=1 << 24) as wire.port:
        yield wire
