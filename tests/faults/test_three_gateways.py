"""Three gateways on one PostgreSQL: gateways, the server, the ways between them and answers to commits fail, under load."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.faults.three import APPENDS, FROZEN_SECONDS, GATEWAYS, Fault, Three, nothing_is_lost, three_on
from tests.postgres import PostgresServer, postgres_server
from tests.postgres_wire import Wire, wire_to
from tests.soak import SOAK
from tests.ways import way_to


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server that the test may kill, and that a power cut would not harm either."""
    with postgres_server(fsync="on", full_page_writes="on", autovacuum="on") as server:
        yield server


def faults_of(three: Three, server: PostgresServer, wires: Sequence[Wire]) -> list[Fault]:
    """Every fault once; kills of gateways in between, if they are not killed all the time."""

    async def restart_the_server() -> None:
        await asyncio.to_thread(server.stop, three.chance.choice([signal.SIGKILL, signal.SIGQUIT, signal.SIGINT]))
        await asyncio.to_thread(server.start)

    async def freeze_the_server() -> None:
        server.pause()
        await asyncio.sleep(1.0 if SOAK == 1 else three.chance.choice(FROZEN_SECONDS))
        server.resume()

    async def cut_a_way() -> None:
        wire = three.chance.choice(wires)
        wire.away = True
        wire.cut_all()
        await asyncio.sleep(1.0)
        wire.away = False

    async def lose_answers() -> None:
        """Cut connections after a commit has reached the server, and before."""
        for wire in wires:
            wire.answers_cut += 3
            wire.commits_cut += 2
        await asyncio.sleep(0.5)

    kills = [three.kill_a_gateway] if SOAK == 1 else []
    return [
        *(restart_the_server, *kills, lose_answers, freeze_the_server, *kills),
        *(cut_a_way, three.freeze_a_gateway, three.part_a_gateway),
    ]


@pytest.mark.timeout(480 + APPENDS // 50)
async def test_faults_of_every_kind_lose_and_double_nothing(
    durable: PostgresServer, tmp_path: Path, forks: None, client: Client
) -> None:
    database = await durable.database()
    temporal = int(client.service_client.config.target_host.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(wire_to(durable.port)) for _ in range(GATEWAYS)]
        apart = SOAK > 1 and os.geteuid() == 0
        way = await stack.enter_async_context(way_to([wires[0].port], stays=[temporal], apart=apart))
        addresses = [wire.address(database) for wire in wires]
        addresses[0] = way.address(addresses[0])
        three = await stack.enter_async_context(three_on(addresses, way, tmp_path, client))
        events = await nothing_is_lost(three, faults_of(three, durable, wires), client)
        assert events >= max(APPENDS, 100)
