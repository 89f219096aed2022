"""Gateways as processes of their own, for tests that kill them and for tests that starve them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import aiohttp

from tests import commands
from tests.pausing import pause, resume
from wakeline.cli.processes import free_port


class GatewayProcess:
    """`wakeline serve` on a port and directory that outlive it.

    Args:
        data: Its directory.
        arguments: More arguments of the command.
        prefix: What stands before the command, and starts it.
        environment: Its variables, beside ours.
        afresh: Start Python for it, also where commands are forked.
        port: Its port; a free one by default.
        host: The address that it listens on.
    """

    def __init__(
        self,
        data: Path,
        *arguments: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
        afresh: bool = False,
        port: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{host}:{self.port}"
        self.log = data.parent.with_name(f"{data.parent.name}-{data.name}.log")
        asks = any(name.startswith("WAKELINE_TOKEN_") for name in environment)
        auth = [] if asks else ["--no-auth"]
        place = ["--host", host, "--port", str(self.port)]
        self._arguments = ["serve", "--data", str(data), *place, *auth, *arguments]
        self._environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        self._prefix = prefix
        self._afresh = afresh or bool(prefix)
        self.process: commands.Running | None = None

    async def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            if commands.are_forked() and not self._afresh:
                self.process = await commands.start(*self._arguments, output=log, environment=self._environment)
            else:
                self.process = await asyncio.create_subprocess_exec(
                    *(*self._prefix, sys.executable, "-m", "wakeline", *self._arguments),
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,
                )
        if wait:
            await self.ready()

    async def ready(self) -> None:
        assert self.process is not None
        async with aiohttp.ClientSession() as http, asyncio.timeout(60):
            while True:
                try:
                    async with http.get(f"{self.url}/healthz"):
                        return
                except aiohttp.ClientError:
                    assert self.process.returncode is None, self.log.read_text()
                    await asyncio.sleep(0.01)

    async def persist(self) -> None:
        """Start it, and again whenever it ends before it answers, as a supervisor does."""
        while True:
            await self.start(wait=False)
            with suppress(AssertionError):
                await self.ready()
                return
            await asyncio.sleep(0.5)

    async def kill(self) -> None:
        assert self.process is not None
        self._signal(signal.SIGKILL)
        await self.process.wait()

    def hold(self) -> None:
        """Let it do nothing until `go_on`: its connections stay, and nobody takes what comes."""
        assert self.process is not None
        pause([self.process.pid])

    def go_on(self) -> None:
        """Let it go on."""
        assert self.process is not None
        resume([self.process.pid])

    async def stop(self) -> int:
        """End it with SIGTERM; its exit code."""
        assert self.process is not None
        self._signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 60)

    def _signal(self, number: signal.Signals) -> None:
        """To all of it: what stands before the gateway in `prefix` may not hand it on."""
        assert self.process is not None
        if self.process.returncode is None:
            os.killpg(self.process.pid, number)
