"""Pages with the real packages of frontends, in one process of node."""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.nodejs import NODE, environment

FOLDER = Path(__file__).parent


class Host:
    """The process of the pages."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asking = asyncio.Lock()
        self.numbers = itertools.count()

    async def ask(self, page: int, command: str, **how: Any) -> Any:
        """The answer to a page's command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._asking, asyncio.timeout(60):
            self._process.stdin.write(json.dumps({"page": page, "command": command, **how}).encode() + b"\n")
            line = await self._process.stdout.readline()
        assert line, "expected an answer, the process of the pages has ended"
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        return answer["result"]


_host: Host | None = None


@asynccontextmanager
async def hosting() -> AsyncIterator[None]:
    """Have a process for the pages, for as long as the block lasts."""
    global _host
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), "host.mjs"), cwd=FOLDER, env=environment(), stdin=PIPE, stdout=PIPE, limit=1 << 22
    )
    _host = Host(process)
    try:
        yield
    finally:
        _host = None
        process.kill()
        await process.communicate()


class Page:
    """One page, on one device."""

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self._number = number

    async def do(self, command: str, **how: Any) -> Any:
        """The answer to a command."""
        return await self._host.ask(self._number, command, **how)

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The page's state, once it is as is wanted."""
        state: dict[str, Any] = {}
        try:
            async with asyncio.timeout(60):
                while not holds(state := await self.do("state")):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(json.dumps(state, indent=1)) from None
        return state


@asynccontextmanager
async def page(script: str, *arguments: str, **variables: str) -> AsyncIterator[Page]:
    """Open a page; what it has asked for ends with it."""
    assert _host is not None
    opened = Page(_host, next(_host.numbers))
    await opened.do("open", script=script, args=arguments, variables=variables)
    try:
        yield opened
    finally:
        await opened.do("close")
