"""Half requests by the thousand: they are ended, and keep nobody from being served. More connections than may be: likewise."""

from __future__ import annotations

import asyncio
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gateways import GatewayProcess
from tests.soak import SOAK
from tests.support import Served

# By default a tenth of it, in a few seconds; `make faults` has 5,000 half requests and 18,000 connections, and prints what a
# publisher's p99 was without and with them. How long somebody waited is no test: machines are shared.
WHOLE = SOAK >= 10
HALF = 5_000 if WHOLE else 500
PATIENCE = "10" if WHOLE else "1.5"
SECONDS = 14 if WHOLE else 3
CONNECTIONS = 18_000 if WHOLE else 3_000
EVENT = {"events": [{"topic": "t", "data": 1}]}


def started(tmp_path: Path, **settings: str) -> GatewayProcess:
    return GatewayProcess(
        tmp_path / "data", environment={f"WAKELINE_{name}": value for name, value in settings.items()}
    )


@asynccontextmanager
async def half_requests(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    program = Path(__file__).with_name("half_requests.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(port), str(HALF), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        yield process
    finally:
        process.kill()
        await process.wait()


async def slowest_hundredth(served: Served, seconds: float) -> float:
    """The 99th percentile of the seconds that a publisher waits, in so many seconds."""
    times = []
    ending = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ending:
        status, _ = await served.call("POST", "/v1/sessions/s/events", json=EVENT)
        times.append(time.perf_counter() - began)
        assert status == 200
        await asyncio.sleep(0.003)
    return statistics.quantiles(times, n=100)[98]


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
async def test_half_requests_are_ended_and_keep_nobody_from_publishing(tmp_path: Path, event_loop: str) -> None:
    timeouts = {"HEADER_TIMEOUT": PATIENCE, "BODY_TIMEOUT": PATIENCE}
    gateway = started(tmp_path, ENGINE="memory", EVENT_LOOP=event_loop, **timeouts)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            before = await slowest_hundredth(served, SECONDS if WHOLE else 0.5)
            async with half_requests(gateway.port) as attacker:
                async with asyncio.timeout(60):
                    while await gauge(served, "wakeline_connections_open") < HALF * 0.6:
                        await asyncio.sleep(0.1)
                # A time in which every half request ends once.
                during = await slowest_hundredth(served, SECONDS)
                await until_cut(attacker, HALF // 4)
            print(f"{event_loop}: p99 {before * 1000:.1f} ms, {during * 1000:.1f} ms with {HALF} half requests")
            async with asyncio.timeout(60):
                while await gauge(served, "wakeline_connections_open") > 10:
                    await asyncio.sleep(0.2)
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.log.read_text()
    finally:
        await gateway.kill()


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
async def test_more_connections_than_files_harm_nobody_who_is_there(tmp_path: Path, event_loop: str) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = min(CONNECTIONS, limit - 1_000)
    most = str(wanted - 1_000)
    gateway = started(tmp_path, ENGINE="memory", EVENT_LOOP=event_loop, MAX_CONNECTIONS=most, HEADER_TIMEOUT="300")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    opened: list[socket.socket] = []
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await served.publish("s", {"topic": "t", "data": "first"})
            steady = await served.stream("s")
            assert (await steady.next())["data"] == "first"
            while len(opened) < wanted:
                opened += await asyncio.to_thread(connect, gateway.port, 500)
                await served.publish("s", {"topic": "t", "data": len(opened)})
                assert (await steady.next())["data"] == len(opened)
            async with asyncio.timeout(60):
                while "refused connections" not in gateway.log.read_text():
                    await asyncio.sleep(0.1)
                while await gauge(served, "wakeline_connections_open") != wanted - 1_000:
                    await asyncio.sleep(0.1)
            await served.publish("s", {"topic": "t", "data": "last"})
            assert (await steady.next())["data"] == "last"
            steady.close()
        log = gateway.log.read_text()
        assert "Too many open files" not in log
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.log.read_text()
    finally:
        for connection in opened:
            connection.close()
        await gateway.kill()


async def until_cut(attacker: asyncio.subprocess.Process, count: int) -> None:
    """Return when more half requests than these were ended, by the attacker's account."""
    assert attacker.stdout is not None
    async with asyncio.timeout(60):
        while int((await attacker.stdout.readline()).split()[1]) <= count:
            pass


def connect(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


async def gauge(served: Served, name: str) -> float:
    async with served.http.get("/metrics") as answer:
        (line,) = [line for line in (await answer.text()).splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])
