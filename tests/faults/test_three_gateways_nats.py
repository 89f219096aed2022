"""Three gateways on three NATS nodes: gateways, nodes, leaders, the ways between them and answers to writes fail, under load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.faults.three import APPENDS, FROZEN_SECONDS, Fault, Three, nothing_is_lost, three_on
from tests.nats import NatsServer, NatsStore, nats_cluster
from tests.nats_wire import Wire, wire_to
from tests.soak import SOAK
from tests.ways import way_to


@pytest.fixture
def cluster() -> Iterator[NatsStore]:
    """Three nodes that the test may kill."""
    with nats_cluster() as store:
        yield store


def leader(cluster: NatsStore, stream: str) -> NatsServer:
    """The node that leads a stream; any, while there is none."""
    for server in cluster.servers:
        for one in server.variables("jsz?streams=true")["account_details"][0]["stream_detail"]:
            if one["name"] == stream and one.get("cluster", {}).get("leader") == server.name:
                return server
    return cluster.servers[0]


def faults_of(three: Three, cluster: NatsStore, wires: Sequence[Wire]) -> list[Fault]:
    """Every fault once; a kill of a gateway in between, if they are not killed all the time."""

    async def kill_a_node() -> None:
        node = three.chance.choice(cluster.servers)
        await asyncio.to_thread(node.stop)
        await asyncio.sleep(three.chance.uniform(0, 1 if SOAK == 1 else 10))
        await asyncio.to_thread(node.start)

    async def kill_all_nodes() -> None:
        for node in cluster.servers:
            node.stop()
        for node in cluster.servers:
            node.launch()
        for node in cluster.servers:
            await asyncio.to_thread(node.wait)

    async def freeze_the_leader(seconds: float) -> None:
        node = await asyncio.to_thread(leader, cluster, "three-sessions-0")
        node.pause()
        await asyncio.sleep(seconds)
        node.resume()
        await asyncio.to_thread(node.wait)

    async def freeze_it_for_long() -> None:
        await freeze_the_leader(30.0)

    async def freeze_it() -> None:
        await freeze_the_leader(FROZEN_SECONDS[0])

    async def lose_answers() -> None:
        """Cut connections of a gateway after a write has reached the node, and before."""
        for wire in wires:
            wire.answers_cut += 3
            wire.writes_cut += 2
        await asyncio.sleep(0.5)

    if SOAK == 1:
        return [
            *(kill_a_node, three.kill_a_gateway, lose_answers, freeze_it),
            *(three.part_a_gateway, three.freeze_a_gateway),
        ]
    return [
        *(kill_a_node, lose_answers, freeze_it, three.part_a_gateway, kill_all_nodes),
        *(three.freeze_a_gateway, kill_a_node, freeze_it_for_long),
    ]


@pytest.mark.timeout(480 + APPENDS // 50)
async def test_faults_of_every_kind_lose_and_double_nothing(
    cluster: NatsStore, tmp_path: Path, forks: None, client: Client
) -> None:
    temporal = int(client.service_client.config.target_host.rpartition(":")[2])
    ports = [port for server in cluster.servers for port in (server.port, server.monitor)]
    async with AsyncExitStack() as stack:
        apart = SOAK > 1 and os.geteuid() == 0
        way = await stack.enter_async_context(way_to(ports, stays=[temporal], apart=apart))
        wires = [await stack.enter_async_context(wire_to(server.port)) for server in cluster.servers]
        address = through = cluster.address("three")
        for wire in wires:
            through = wire.address(through)
        three = await stack.enter_async_context(
            three_on([way.address(address), address, through], way, tmp_path, client)
        )
        events = await nothing_is_lost(three, faults_of(three, cluster, wires), client)
        assert events >= max(APPENDS, 100)
        assert sum(wire.cuts for wire in wires) > 0
