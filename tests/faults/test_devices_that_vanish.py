"""Devices that are cut at any moment, in the middle of a fan-out too, disturb nobody else. On each event loop there is."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from pathlib import Path

import pytest

from tests.gateways import GatewayProcess
from tests.soak import SOAK, times
from tests.support import Served

EVENTS = times(120, 600)
DEVICES = 10 if SOAK == 1 else 40
RESET = struct.pack("ii", 1, 0)  # close with a reset, as a device does that lost its network


async def come_and_go(port: int, chance: random.Random, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    while not stopping.is_set():
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        request = b"GET /v1/sessions/s/events?from=now HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
        await loop.sock_sendall(connection, request)
        await asyncio.sleep(chance.uniform(0, 0.05))
        connection.close()


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
async def test_the_steady_device_gets_everything(tmp_path: Path, event_loop: str) -> None:
    gateway = GatewayProcess(tmp_path / "data", environment={"WAKELINE_EVENT_LOOP": event_loop})
    await gateway.start()
    stopping = asyncio.Event()
    try:
        async with Served(gateway.url) as served:
            await served.publish("s", {"topic": "t", "data": "first"})
            steady = await served.stream("s")
            vanishing = [
                asyncio.ensure_future(come_and_go(gateway.port, random.Random(n), stopping)) for n in range(DEVICES)
            ]
            for n in range(EVENTS):
                await served.publish("s", {"topic": "t", "data": n})
            async with asyncio.timeout(60):
                offsets = [e["offset"] for e in await steady.take(EVENTS + 1)]
            stopping.set()
            await asyncio.gather(*vanishing)
            steady.close()
            async with asyncio.timeout(60):
                while (await served.call("GET", "/v1/sessions/s"))[1]["devices"]:
                    await asyncio.sleep(0.05)
        assert offsets == list(range(EVENTS + 1))
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.log.read_text()
    finally:
        await gateway.kill()
