"""Serves a chat's page: a Temporal dev server, the worker, the gateway, and Vite with the page."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from examples.chat_ai_sdk.play import served
from wakeline.cli.processes import TemporalServer, free_port


async def serve(folder: Path) -> None:
    """Serve the page in a folder until the user stops it; needs npm.

    Args:
        folder: The page, with its `package.json`.
    """
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("expected npm, to install and serve the page; got none in PATH. Install Node 22 or later.")
    server = TemporalServer()
    await server.start()
    try:
        client = await server.ready()
        async with served(client, "chats", free_port()) as url:
            await _run(npm, "ci", "--no-audit", "--no-fund", cwd=folder)
            await _run(npm, "run", "dev", cwd=folder, WAKELINE=url)
    finally:
        await server.stop()


async def _run(*command: str, cwd: Path, **variables: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, env={**os.environ, **variables})
    try:
        if await process.wait() != 0:
            sys.exit(f"`{' '.join(command)}` failed in {cwd}")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
