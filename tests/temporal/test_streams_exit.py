"""A program that reads streams can end at any time."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from temporalio.client import Client

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import PATIENCE, start, worker

ROOT = Path(__file__).parents[2]
READERS = 50


async def test_a_program_ends_while_it_waits_for_events(client: Client) -> None:
    async with worker(client) as queue:
        handle = await start(client, queue, hosts.Hub)
        await handle.signal("say", args=["n", [7]])
        for _ in range(3):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.temporal.streams_leaver"),
                *(client.service_client.config.target_host, handle.id, str(READERS)),
                cwd=ROOT,
                stdout=PIPE,
            )
            try:
                output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            assert (process.returncode, output.decode().strip()) == (0, str([7] * READERS))
        await handle.terminate()
