"""Clients that are not ours: each message once, in order, whatever happens to connections and to the gateway."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import aiohttp

from tests.conformance.cutter import cutter
from tests.conformance.node import node
from tests.gateways import GatewayProcess

COUNT = 200
KILLS = 3
PATIENCE = 150


async def produce(url: str) -> None:
    async with node("producer.js", url, str(COUNT)) as process:
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, errors.decode()[-2000:]


async def read(mode: str, url: str) -> list[int]:
    """The numbers that a client of a mode was given, to the end of the stream."""
    async with node("--experimental-eventsource", "reader.js", mode, url) as process:
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, errors.decode()[-2000:]
    return [json.loads(line)["n"] for line in output.splitlines()]


async def there(url: str) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):
        while True:
            async with http.head(url) as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


async def kill_now_and_then(gateway: GatewayProcess) -> None:
    chance = random.Random(7)
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        await gateway.kill()
        await gateway.start()


async def test_the_official_client_and_an_event_source_through_cuts_and_kills(tmp_path: Path, forks: None) -> None:
    gateway = GatewayProcess(tmp_path / "data", environment={"WAKELINE_LONG_POLL_TIMEOUT": "0.5"})
    await gateway.start()
    modes = ["long-poll", "sse", "eventsource"]
    async with (
        cutter(gateway.port, seed=1) as (writing, for_writer),
        cutter(gateway.port, seed=2, longest=0.2) as (reading, for_readers),
    ):
        path = "/v1/stream/numbers"
        producing = asyncio.create_task(produce(writing + path))
        await there(gateway.url + path)  # an EventSource gives up on a stream that is not there yet
        readers = [asyncio.create_task(read(mode, reading + path)) for mode in modes]
        await kill_now_and_then(gateway)
        await producing
        got = dict(zip(modes, await asyncio.gather(*readers), strict=True))
    assert await gateway.stop() == 0
    assert got == {mode: list(range(COUNT)) for mode in modes}
    assert for_writer.cuts > 3
    assert for_readers.cuts > 3
