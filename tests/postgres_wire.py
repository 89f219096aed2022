"""A proxy between a gateway and PostgreSQL that cuts connections around commits, and holds notifications back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from tests.accepting import accepting

_COMMIT = b"COMMIT\0"


class Wire:
    """What passes between gateways and the server.

    Attributes:
        answers_cut: So many commits reach the server, and the connection is cut before their answers pass.
        commits_cut: So many commits do not reach the server: the connection is cut before them.
        notifies: Whether notifications pass.
        notifications: How many notifications have come from the server.
        away: Whether new connections are refused.
        cuts: How many connections were cut.
        opened: How many connections were opened, those that only cancel a statement included.
    """

    def __init__(self, port: int) -> None:
        self.answers_cut = 0
        self.commits_cut = 0
        self.notifies = True
        self.notifications = 0
        self.away = False
        self.cuts = 0
        self.opened = 0
        self.port = 0
        self._server_port = port
        self._writers: set[asyncio.StreamWriter] = set()

    def address(self, address: str) -> str:
        """The address of a database through this proxy."""
        return address.replace(f":{self._server_port}/", f":{self.port}/") + "?sslmode=disable"

    def cut_all(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        if self.away:
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            return
        one = _Connection(self, writer, server_writer)
        self._writers |= {writer, server_writer}
        try:
            await asyncio.gather(
                _pass(reader, server_writer, one.from_client, first=True), _pass(server_reader, writer, one.from_server)
            )
        finally:
            self._writers -= {writer, server_writer}
            server_writer.transport.abort()


class _Connection:
    """One connection, of which messages are dropped, or which is cut at one of them."""

    def __init__(self, wire: Wire, *ends: asyncio.StreamWriter) -> None:
        self._wire = wire
        self._ends = ends
        self._cut_at_answer = False

    def from_client(self, kind: bytes, body: bytes) -> bool:
        if kind == b"Q" and body == _COMMIT:
            if self._wire.commits_cut:
                self._wire.commits_cut -= 1
                return self._cut()
            if self._wire.answers_cut:
                self._wire.answers_cut -= 1
                self._cut_at_answer = True
        return True

    def from_server(self, kind: bytes, body: bytes) -> bool:
        if kind == b"C" and body == _COMMIT and self._cut_at_answer:
            return self._cut()
        self._wire.notifications += kind == b"A"
        return kind != b"A" or self._wire.notifies

    def _cut(self) -> bool:
        self._wire.cuts += 1
        for end in self._ends:
            end.transport.abort()
        return False


async def _pass(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    passes: Callable[[bytes, bytes], bool],
    *,
    first: bool = False,
) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            kind = b"" if first else await reader.readexactly(1)  # the first message of a client has no kind
            length = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(length) - 4)
            first = False
            if passes(kind, body):
                writer.write(kind + length + body)
                await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """A proxy to the server at a port."""
    wire = Wire(port)
    async with accepting(wire.serve) as wire.port:
        yield wire
