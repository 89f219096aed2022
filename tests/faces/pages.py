"""Pages with the real packages of frontends, as processes of node."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.nodejs import NODE, environment

FOLDER = Path(__file__).parent


class Page:
    """One page, on one device."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def do(self, command: str, **how: Any) -> Any:
        """The answer to a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **how}).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, (await self._process.stderr.read()).decode() if self._process.stderr else ""
        return json.loads(line)

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The page's state, once it is as is wanted."""
        state: dict[str, Any] = {}
        try:
            async with asyncio.timeout(60):
                while not holds(state := await self.do("state")):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(json.dumps(state, indent=1)) from None
        return state


@asynccontextmanager
async def page(script: str, *arguments: str, **variables: str) -> AsyncIterator[Page]:
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), script, *arguments),
        cwd=FOLDER,
        env=environment(**variables),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=1 << 22,
    )
    try:
        yield Page(process)
    finally:
        process.kill()
        await process.communicate()
