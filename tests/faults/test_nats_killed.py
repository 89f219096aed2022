"""Gateways on NATS clusters: under load, gateways and nodes are killed and frozen, and nothing is lost or there twice."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.pairs import Pair, gateways_on, nothing_is_lost
from tests.nats import NatsServer, NatsStore, nats_cluster, nats_server
from tests.soak import SOAK
from tests.support import Served
from wakeline.errors import EngineRefusedError
from wakeline.gateway.app import gateway
from wakeline.gateway.log.engines.nats import NatsEngine, link
from wakeline.gateway.settings import Settings
from wakeline.gateway.stores import streams

FAULTS = ["gateway killed", "node killed"]
if SOAK > 1:  # make faults
    FAULTS = [*FAULTS, "gateway frozen", "node frozen", "all nodes killed"] * SOAK


OTHERS = {"temporal": "off", "erasure": "ok"}


def one(data: object) -> dict[str, object]:
    """The body of a request that publishes one event."""
    return {"events": [{"topic": "t", "data": data}]}


@pytest.fixture(params=[3])
def cluster(request: pytest.FixtureRequest) -> Iterator[NatsStore]:
    """Nodes that a test may kill: three, or one that is not part of a cluster."""
    with nats_server() if request.param == 1 else nats_cluster(request.param) as store:
        yield store


with_one_node_too = pytest.mark.parametrize("cluster", [1, 3], indirect=True)


@pytest.fixture
async def pair(cluster: NatsStore, tmp_path: Path) -> AsyncIterator[Pair]:
    async with gateways_on(cluster.address(), tmp_path) as pair:
        yield pair


async def test_fewer_replicas_than_nodes_are_refused_unless_they_are_asked_for(cluster: NatsStore) -> None:
    alone = NatsEngine(cluster.address("single", replicas="1"))
    await alone.open()
    await alone.close()
    with pytest.raises(EngineRefusedError, match=r"NATS .*: expected 3 replicas of stream single-records, it has 1"):
        await NatsEngine(cluster.address("single")).open()
    asked = NatsEngine(cluster.address("default"))
    await asked.open()
    await asked.close()
    for server in cluster.servers:
        streams = server.variables("jsz?streams=true")["account_details"][0]["stream_detail"]
        assert {"default-records", "default-sessions-0", "default-sessions-1"} <= {one["name"] for one in streams}


@with_one_node_too
async def test_what_is_published_at_one_gateway_is_read_live_at_the_other_and_after_a_restart(pair: Pair) -> None:
    async with Served(pair[0].url) as first, Served(pair[1].url) as second:
        await first.publish("s", {"topic": "t", "data": 0})
        streams = [await served.stream("s", "from=beginning") for served in (first, second)]
        for number in range(1, 30):
            await (first, second)[number % 2].publish("s", {"topic": "t", "data": number})
        for stream in streams:
            assert [(e["offset"], e["data"]) for e in await stream.take(30)] == [(n, n) for n in range(30)]
        status, ready = await second.call("GET", "/readyz")
        assert (status, ready["status"], ready["log"]) == (200, "ready", "ok")
        counted = [await served.metric("wakeline_events_total") for served in (first, second)]
        assert sum(counted) == 30
    await pair[0].kill()
    await pair[0].start()
    async with Served(pair[0].url) as first:
        stream = await first.stream("s", "from=beginning")
        assert [e["offset"] for e in await stream.take(30)] == list(range(30))


@with_one_node_too
@pytest.mark.timeout(480 + 40 * len(FAULTS))
async def test_faults_of_gateways_and_nodes_lose_and_double_nothing(pair: Pair, cluster: NatsStore) -> None:
    async def faults(chance: random.Random) -> None:
        for fault in FAULTS:
            await asyncio.sleep(chance.uniform(0.3, 1.0))
            node = chance.choice(cluster.servers)
            match fault:
                case "gateway killed":
                    await pair[0].kill()
                    await pair[0].start(wait=chance.random() < 0.8)
                case "node killed":
                    await asyncio.to_thread(node.stop)
                    await asyncio.sleep(chance.uniform(0, 1 if SOAK == 1 else 10))
                    await asyncio.to_thread(node.start)
                case "gateway frozen":
                    pair[0].hold()
                    await asyncio.sleep(6)
                    pair[0].go_on()
                case "node frozen":
                    node.pause()
                    await asyncio.sleep(chance.choice((6, 30)))
                    node.resume()
                case "all nodes killed":
                    for one in cluster.servers:
                        one.stop()
                    for one in cluster.servers:
                        one.launch()
                    for one in cluster.servers:
                        await asyncio.to_thread(one.wait)
        await pair[0].ready()

    assert await nothing_is_lost(pair, faults) > 100


async def test_a_minority_acknowledges_nothing_and_everything_continues_afterwards(
    pair: Pair, cluster: NatsStore
) -> None:
    async with Served(pair[0].url) as served:
        await served.publish("s", {"topic": "t", "data": "before"})
        for node in cluster.servers:
            streams = node.variables("jsz?streams=true")["account_details"][0]["stream_detail"]
            assert len(streams) == 3  # each node has a replica of each stream
        for node in cluster.servers[1:]:
            node.pause()
        try:
            writing = asyncio.ensure_future(served.call("POST", "/v1/sessions/s/events", json=one("during")))
            done, _ = await asyncio.wait([writing], timeout=5)
            assert not done or writing.result()[0] == 503
        finally:
            for node in cluster.servers[1:]:
                node.resume()
        await asyncio.wait([writing])
        end = time.monotonic() + 60
        while True:
            status, _ = await served.call("POST", "/v1/sessions/s/events", json=one("after"))
            if status == 200:
                break
            assert time.monotonic() < end
            await asyncio.sleep(0.2)
        said = json.dumps(await served.call("GET", "/readyz"))
        assert not any(server.place in said for server in cluster.servers)
        events = await (await served.stream("s", "from=beginning")).take(2)
        assert events[0]["data"] == "before"


async def test_a_stream_whose_node_is_away_is_named_and_the_others_are_served(
    cluster: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "CALL_SECONDS", 1.0)
    address = cluster.address("spread", replicas="1", shards="6")
    settings = Settings(engine=address, port=0, no_auth=True, leave_within=0)
    async with gateway(settings) as url, Served(url) as served:
        await until_health(served, "ready", "ok")
        node, away = next(
            (server, names) for server in cluster.servers if "spread-records" not in (names := held_by(server))
        )
        assert away
        node.stop()
        several = f"{len(away)} streams do not answer: {', '.join(sorted(away))}"
        await until_health(
            served, "degraded", f"ok, but {several if len(away) > 1 else f'stream {min(away)} does not answer'}"
        )
        every = {"spread-records", *(f"spread-sessions-{n}" for n in range(6))}
        async with asyncio.timeout(60):  # on a busy machine another one may not answer in time either
            while True:
                shown = await streams(settings)
                silent = {state.name for state in shown if state.problem == "it does not answer"}
                there = {state.name for state in shown if state.current == 1 and state.leader}
                if (silent, there | silent) == (away, every):
                    break
        node.start()
        await until_health(served, "ready", "ok")


async def test_a_gateway_whose_nodes_have_lost_their_majority_is_not_ready(
    cluster: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "TROUBLE_SECONDS", 0.0)  # a write that got no answer would show it for a moment only
    settings = Settings(engine=cluster.address("majority"), port=0, no_auth=True, leave_within=0)
    async with gateway(settings) as url, Served(url) as served:
        await until_health(served, "ready", "ok")
        for node in cluster.servers[1:]:
            node.stop()
        await until_health(served, "unready", "failed: stream majority-records does not answer")
        for node in cluster.servers[1:]:
            node.launch()
        await until_health(served, "ready", "ok")


async def until_health(served: Served, status: str, log: str) -> None:
    """Return when `/readyz` reports this."""
    async with asyncio.timeout(60):
        while (await served.call("GET", "/readyz"))[1] != {"status": status, "log": log, **OTHERS}:
            await asyncio.sleep(0.1)


def held_by(server: NatsServer) -> set[str]:
    """The streams that a node has a replica of."""
    details = server.variables("jsz?streams=true")["account_details"]
    return {stream["name"] for account in details for stream in account["stream_detail"]}
