"""A device whose host vanishes says no goodbye: not a FIN, not a RST, and no acknowledgement of anything any more.

The scene plays in a network of its own, in which the route to the device's address is cut while the connection is open. It
takes no root. Presence must say that the device has left within the time-out, and nobody else must notice.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from tests.gateways import GatewayProcess
from tests.support import Served, Stream

TIMEOUT = 2.0
KEEP_ALIVE = 0.5
DEVICE = "127.0.0.2"


async def test_presence_says_so_within_the_time_out() -> None:
    scene = await asyncio.create_subprocess_exec(
        *("unshare", "--map-root-user", "--net", sys.executable, "-m", __name__),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, failure = await asyncio.wait_for(scene.communicate(), 150)
    finally:
        if scene.returncode is None:
            scene.kill()
    assert scene.returncode == 0, failure.decode()
    took: float = json.loads(output)
    # Data that is unsent for longer than the time-out ends the connection; TCP itself would wait for a quarter of an hour.
    assert 0.5 * TIMEOUT < took < 30


async def presence(stream: Stream) -> tuple[str, str]:
    while True:
        lines = await stream.lines()
        if b"event: presence" in lines:
            told = json.loads(next(line for line in lines if line.startswith(b"data: "))[6:])
            return told["event"], told["device"]


async def devices(served: Served) -> dict[str, Any]:
    _, answer = await served.call("GET", "/v1/sessions/s/devices")
    return {device["device"]: device for device in answer["devices"]}


async def ip(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *arguments)
    assert await process.wait() == 0


async def scene(data: Path) -> float:
    """Have a device vanish; the seconds until it has left."""
    await ip("link", "set", "lo", "up")
    environment = {"WAKELINE_WRITE_TIMEOUT": str(TIMEOUT), "WAKELINE_KEEP_ALIVE": str(KEEP_ALIVE)}
    gateway = GatewayProcess(data, environment=environment)
    await gateway.start()
    try:
        async with (
            Served(gateway.url) as served,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(DEVICE, 0))) as elsewhere,
        ):
            answer = await served.publish("s", {"topic": "t", "data": 1})
            watcher = await served.stream("s", "presence=true&device=desk")
            assert await presence(watcher) == ("join", "desk")
            url = f"{gateway.url}/v1/sessions/s/events?device=phone"
            vanishing = Stream(await elsewhere.get(url, headers={"Accept": "text/event-stream"}))
            await vanishing.next()
            assert await presence(watcher) == ("join", "phone")
            assert (await devices(served))["phone"]["connected"]
            await ip("route", "add", "blackhole", DEVICE, "table", "local")
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await presence(watcher) == ("leave", "phone")
            took = loop.time() - began
            known = await devices(served)
            assert (known["phone"]["connected"], known["desk"]["connected"]) == (False, True)
            assert known["phone"]["delivered"] == f"{answer['epoch']}-1"
            vanishing.close()
            watcher.close()
        assert await gateway.stop() == 0
        return took
    finally:
        await gateway.kill()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asyncio.run(asyncio.wait_for(scene(Path(directory, "data")), 120))))
