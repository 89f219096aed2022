"""Running node with the packages of this folder's lock file."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import nodejs
from tests.nodejs import NODE, environment

FOLDER = Path(__file__).parent
VITEST = FOLDER / "node_modules" / "vitest" / "vitest.mjs"


def install() -> None:
    """Have the packages of the lock file."""
    nodejs.install(FOLDER)


@asynccontextmanager
async def node(*arguments: str, **variables: str) -> AsyncIterator[Process]:
    """A node process that is over when this is."""
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), *arguments), cwd=FOLDER, env=environment(**variables), stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
