"""`wakeline serve --processes`: several gateways share a port, are restarted, and stop together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.commands import wakeline
from tests.gateways import GatewayProcess
from tests.postgres import PostgresServer
from tests.support import Served
from wakeline.cli.processes import free_port


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def answering(port: int) -> bool:
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def two_free_ports() -> int:
    """Return a port that is free, as is the one after it."""
    while True:
        port = free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port


async def test_processes_share_the_port_are_restarted_and_stop_together(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    own, engine = two_free_ports(), await postgres.database()
    gateways = GatewayProcess(
        tmp_path / "data",
        *("--processes", "2"),
        environment={
            "WAKELINE_ENGINE": engine,
            "WAKELINE_OWN_PORT": str(own),
            "WAKELINE_LEAVE_WITHIN": "0.2",
        },
        afresh=True,
    )
    await gateways.start()
    try:
        async with asyncio.timeout(120), Served(gateways.url) as served:
            while not (await answering(own) and await answering(own + 1)):
                await asyncio.sleep(0.05)
            assert gateways.process is not None
            before = children(gateways.process.pid)
            assert len(before) == 2
            await served.publish("s", {"topic": "t", "data": 0})
            streams = [await served.stream("s") for _ in range(30)]  # the kernel gives each process its part
            for port in (own, own + 1):
                async with Served(f"http://127.0.0.1:{port}") as one:
                    assert 0 < await one.metric("wakeline_connections_open") < 40
            await served.publish("s", {"topic": "t", "data": 1})
            for stream in streams:
                assert [event["data"] for event in await stream.take(2)] == [0, 1]
            os.kill(before[0], signal.SIGKILL)
            while not (await answering(own) and await answering(own + 1)) or before[0] in children(
                gateways.process.pid
            ):
                await asyncio.sleep(0.05)
            asked = ("--processes", "2", "--port", served.url.rpartition(":")[2], "--engine", engine)
            code, _, err = await wakeline("serve", "--no-auth", *asked)
            assert (code, "Address already in use" in err) == (2, True), "another command takes no part of the port"
    finally:
        assert await gateways.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)


async def test_a_gateway_that_the_store_refuses_leaves_the_others_running(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    own, engine = two_free_ports(), await postgres.database()
    database = engine.rpartition("/")[2]
    environment = {"WAKELINE_ENGINE": engine, "WAKELINE_OWN_PORT": str(own), "WAKELINE_LEAVE_WITHIN": "0.2"}
    gateways = GatewayProcess(tmp_path / "data", "--processes", "2", environment=environment, afresh=True)
    await gateways.start()
    try:
        async with asyncio.timeout(120):
            while not (await answering(own) and await answering(own + 1)):
                await asyncio.sleep(0.05)
            assert gateways.process is not None
            first, second = children(gateways.process.pid)
            await postgres.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")  # as while it fails over
            os.kill(first, signal.SIGKILL)
            while not any('"code": 2' in line for line in gateways.log.read_text().splitlines()):
                await asyncio.sleep(0.05)
            assert second in children(gateways.process.pid)
            await postgres.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
            while not (await answering(own) and await answering(own + 1)):
                await asyncio.sleep(0.05)
            assert second in children(gateways.process.pid)
    finally:
        assert await gateways.stop() == 0


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "One gateway writes a SQLite file"),
        (("--engine", "memory"), "The engine memory keeps sessions in one process"),
    ],
)
async def test_a_store_that_one_gateway_has_for_itself_is_refused(
    arguments: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    code, _, err = await wakeline("serve", "--no-auth", "--data", str(tmp_path), "--processes", "2", *arguments)
    assert code == 2
    assert why in err.splitlines()[1]
    assert ("SQLite" in err) == (not arguments)
    assert not list(tmp_path.iterdir())


async def test_a_gateway_that_is_refused_ends_all_of_them() -> None:
    asked = ("--port", str(free_port()), "--engine", "postgres://nobody@127.0.0.1:1/nowhere")
    code, _, err = await wakeline("serve", "--no-auth", "--processes", "3", *asked)
    assert code == 2
    assert err.count("can be reached") == 1


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("taken", ["port", "own_port"])
async def test_a_port_that_is_taken_is_reported_once_with_the_setting_that_names_it(
    postgres: PostgresServer, taken: str
) -> None:
    busy, free = two_free_ports() + 1, free_port()
    with socket.create_server(("127.0.0.1", busy)):
        asked = ("--port", str(busy if taken == "port" else free), "--engine", await postgres.database())
        environment = {"WAKELINE_OWN_PORT": str(busy - 1)} if taken == "own_port" else {}
        code, _, err = await wakeline("serve", "--no-auth", "--processes", "2", *asked, environment=environment)
    assert code == 2
    assert [line for line in err.splitlines() if "listen" in line.lower()] == err.splitlines()
    assert err.count(f"listen_refused: cannot listen on 127.0.0.1:{busy}: Address already in use") == 1
    assert ("give --port another port" if taken == "port" else "give own_port (WAKELINE_OWN_PORT)") in err
    assert "0 takes a free one" not in err


@pytest.mark.usefixtures("forks")
async def test_an_own_port_that_is_taken_is_named_for_one_gateway_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        environment = {"WAKELINE_OWN_PORT": str(listening.getsockname()[1])}
        asked = ("--port", "0", "--data", str(tmp_path / "data"))
        code, _, err = await wakeline("serve", "--no-auth", *asked, environment=environment)
    assert code == 2
    assert "give own_port (WAKELINE_OWN_PORT) another port." in err


async def test_processes_that_are_stopped_at_once_end_with_exit_code_0(postgres: PostgresServer) -> None:
    asked = ("--processes", "2", "--port", str(free_port()), "--engine", await postgres.database())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", "serve", "--no-auth", *asked), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        while not children(process.pid):
            await asyncio.sleep(0.01)
    process.terminate()  # its child is still importing, and cannot handle the signal yet
    assert await process.wait() == 0
