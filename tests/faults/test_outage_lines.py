"""The log of a gateway whose store goes away for seconds: a line at the beginning, one at the end, and no traceback."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.faults.test_store_away import EVENTS, SECONDS, refuse, server_of
from tests.gateways import GatewayProcess
from tests.nats import nats_cluster
from tests.postgres import PostgresServer, connection_to, postgres_server
from tests.support import Served
from wakeline.cli.processes import free_port
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings


def lines_of(process: GatewayProcess) -> list[dict[str, Any]]:
    """The lines of a gateway's log, each of which is JSON."""
    return [json.loads(line) for line in process.log.read_text().splitlines()]


async def lines_of_the_start(process: GatewayProcess) -> int:
    """How many lines a gateway has written when it listens; on a busy machine it writes them a moment later."""
    async with asyncio.timeout(60):
        while True:
            for number, line in enumerate(lines_of(process), 1):
                if line["event"].startswith("listening on "):
                    return number
            await asyncio.sleep(0.05)


async def line_of(process: GatewayProcess, event: str) -> dict[str, Any]:
    """The first line with this message."""
    async with asyncio.timeout(60):
        while not (found := [line for line in lines_of(process) if line["event"] == event]):
            await asyncio.sleep(0.05)
    return found[0]


@pytest.mark.parametrize("kind", ["PostgreSQL", "NATS"])
async def test_an_outage_of_the_store_is_one_warning_and_its_end_one_line_with_its_duration(
    kind: str, tmp_path: Path
) -> None:
    with server_of(kind) as (server, address):
        monitor = "" if isinstance(server, PostgresServer) else "--nats-sync-unchecked"
        process = GatewayProcess(tmp_path / "data", *filter(None, [monitor]), environment={"WAKELINE_ENGINE": address})
        await process.start()
        async with Served(process.url) as served:
            await served.publish("s", {"topic": "t"})
            stream = await served.stream("s", "from=beginning")
            await stream.next()
            first = await lines_of_the_start(process)
            await asyncio.to_thread(server.stop)
            began = time.monotonic()
            while time.monotonic() < began + SECONDS:
                await refuse(served, "POST", EVENTS, json={"events": [{"topic": "t"}]})
                await refuse(served, "GET", "/v1/sessions/another/events")
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(60):
                while (await served.call("POST", EVENTS, json={"events": [{"topic": "t"}]}))[0] != 200:
                    await asyncio.sleep(0.05)
            took = time.monotonic() - began
        back = await line_of(process, "the store is back")
        lines = [line for line in lines_of(process)[first:] if "outcome" not in line["event"]]
        assert [(line["event"], line["level"]) for line in lines] == [
            ("the store is away", "warning"),
            ("the store is back", "info"),
        ]
        host = f"127.0.0.1:{server.port}"
        assert lines[0]["store"] == back["store"] == f"{kind} at {host}"
        # PostgreSQL may answer once more, while it stops.
        assert re.search("no connection|it is starting or stopping", lines[0]["error"])
        assert SECONDS - 2 < back["seconds"] < took + 10
        assert await process.stop() == 0


@pytest.mark.parametrize("kind", ["PostgreSQL", "NATS"])
async def test_the_first_line_names_the_store_and_its_own_port_instead_of_a_directory(
    kind: str, tmp_path: Path
) -> None:
    with server_of(kind) as (server, address):
        settings = {"WAKELINE_ENGINE": address, "WAKELINE_NATS_SYNC_UNCHECKED": "true"}
        settings["WAKELINE_OWN_PORT"] = str(own := free_port())
        process = GatewayProcess(tmp_path / "data", environment=settings)
        await process.start()
        listening = await line_of(process, f"listening on {process.url}")
        assert listening["store"] == f"{kind} at 127.0.0.1:{server.port}"
        assert listening["own_port"] == own
        assert "wakeline-data" not in json.dumps(lines_of(process))
        assert not {"data", "engine"} & set(listening)
        assert await process.stop() == 0


async def test_a_role_with_too_few_connections_is_refused_at_the_start(tmp_path: Path) -> None:
    with postgres_server() as server:
        await server.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 3")
        await server.execute("CREATE DATABASE few OWNER few")
        address = server.address("few").replace("wakeline@", "few@")
        process = GatewayProcess(tmp_path / "data", environment={"WAKELINE_ENGINE": address})
        await process.start(wait=False)
        assert process.process is not None
        assert await asyncio.wait_for(process.process.wait(), 60) == 2
        said = process.log.read_text()
        assert "9 connections for each gateway, got 3" in said
        assert "CONNECTION LIMIT" in said
        assert "listening" not in said
        assert "Traceback" not in said


async def test_connections_that_others_have_taken_are_logged_with_the_number_that_a_gateway_needs(
    tmp_path: Path,
) -> None:
    with postgres_server() as server:
        await server.execute("CREATE ROLE shared LOGIN CONNECTION LIMIT 10")
        await server.execute("CREATE DATABASE shared OWNER shared")
        address = server.address("shared").replace("wakeline@", "shared@")
        process = GatewayProcess(tmp_path, environment={"WAKELINE_ENGINE": address, "WAKELINE_LEAVE_WITHIN": "0"})
        await process.start()
        async with AsyncExitStack() as others:
            with suppress(asyncpg.TooManyConnectionsError):
                for _ in range(10):
                    await others.enter_async_context(connection_to(address))
            async with Served(process.url) as served, asyncio.timeout(60):
                number = 0
                while "a gateway uses 9 connections" not in process.log.read_text():
                    number += 1  # each session has one of several writers, each with a connection of its own
                    await served.call("POST", f"/v1/sessions/{number}/events", json={"events": [{"topic": "t"}]})
        assert "Traceback" not in process.log.read_text()
        await process.kill()


async def test_the_election_of_leaders_at_a_first_start_is_not_logged_as_a_failure(tmp_path: Path) -> None:
    with nats_cluster() as store:
        processes = [
            GatewayProcess(
                tmp_path / name,
                environment={"WAKELINE_ENGINE": store.address(name, shards="16"), "WAKELINE_LEAVE_WITHIN": "0"},
            )
            for name in ("a", "b", "c", "d")
        ]
        await asyncio.gather(*(process.start() for process in processes))
        for process in processes:
            assert [line["event"] for line in lines_of(process) if line["event"].startswith("the store")] == []
            assert await process.stop() == 0


@pytest.mark.parametrize("kind", ["PostgreSQL", "NATS"])
async def test_the_hint_of_a_failure_fits_what_the_publisher_has_sent(kind: str) -> None:
    with server_of(kind) as (server, address):
        settings = Settings(engine=address, port=0, no_auth=True, leave_within=0)
        async with gateway(settings) as url, Served(url) as served:
            await served.publish("s", {"topic": "t"})
            await asyncio.to_thread(server.stop)
            body = {"events": [{"topic": "t"}]}
            idempotent = {"Wakeline-Publisher": "p", "Wakeline-Sequence": "0"}
            answers = [
                await served.call("POST", EVENTS, json=body, headers=idempotent),
                await served.call("POST", EVENTS, json=body),
                await served.call("GET", "/v1/sessions/another/events"),
            ]
            await asyncio.to_thread(server.start)
    assert [status for status, _ in answers] == [503, 503, 503]
    assert {answer["error"]["message"] for _, answer in answers} <= {
        f"{kind} failed: {words}" for words in ("no connection", "it is stopping", "no answer in time")
    }
    assert [answer["error"]["hint"] for _, answer in answers] == [
        "Retry with the same Wakeline-Publisher and Wakeline-Sequence: a second copy is never written.",
        "Whether the events were written is unknown: read the session before you publish them again.",
        "Try again when the store is back; no acknowledged event is lost.",
    ]
