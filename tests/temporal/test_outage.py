"""Temporal down at start, and Temporal going away: the gateway serves what it has, says so, and goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.worker import Worker

from tests.commands import wakeline
from tests.support import Served, Stream
from tests.temporal.follower_workflows import Talks, stream_numbers
from wakeline.cli.processes import TemporalServer
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TemporalServer]:
    """A Temporal server of this test's own, not started yet, that can be stopped and started again."""
    own = TemporalServer(database=tmp_path / "temporal.db")
    yield own
    await own.kill()


@pytest.fixture
async def served(server: TemporalServer, tmp_path: Path) -> AsyncIterator[Served]:
    settings = Settings(
        data=str(tmp_path / "data"), port=0, temporal=server.address, durability="process", no_auth=True
    )
    async with gateway(settings) as url, Served(url) as running:
        yield running


async def readyz(served: Served, status: str) -> dict[str, Any]:
    """Wait until `/readyz` says `status`."""
    async with asyncio.timeout(60):
        while True:
            code, body = await served.call("GET", "/readyz")
            assert code == 200
            if body["status"] == status:
                assert isinstance(body, dict)
                return body
            await asyncio.sleep(0.1)


async def watch(served: Served, query: str = "") -> Stream:
    """Open the stream of "order" as a device does: a 503 says that Temporal did not answer in time, so try again."""
    async with asyncio.timeout(60):
        while (stream := await served.stream("order", query)).answer.status == 503:
            stream.close()
            await asyncio.sleep(0.1)
    return stream


async def test_down_at_start_then_there(server: TemporalServer, served: Served) -> None:
    body = await readyz(served, "degraded")
    assert body["temporal"].startswith("unreachable")
    await served.publish("plain", {"topic": "t", "data": 1})
    stream = await served.stream("plain")
    assert (await stream.next())["data"] == 1
    stream.close()
    status, body = await served.call("GET", "/v1/sessions/order/events")
    assert (status, body["error"]["code"]) == (503, "temporal_unavailable")
    status, body = await served.call("POST", "/v1/runs", json={"workflow_id": "order"})
    assert (status, body["error"]["code"]) == (503, "temporal_unavailable")

    await server.start()
    client = await server.ready()
    await readyz(served, "ready")
    async with Worker(client, task_queue="q", workflows=[Talks], activities=[stream_numbers]):
        await client.start_workflow(Talks.run, args=["completes", 3], id="order", task_queue="q")
        async with asyncio.timeout(60):
            events = await (await watch(served, "until=settled")).rest()
    assert [e["data"] for e in events if e["topic"] == "number"] == [0, 1, 2]


async def test_away_in_the_middle_of_a_run_and_back(server: TemporalServer, served: Served) -> None:
    await server.start()
    client = await server.ready()
    async with Worker(client, task_queue="q", workflows=[Talks], activities=[stream_numbers]):
        await client.start_workflow(Talks.run, args=["waits", 20], id="order", task_queue="q")
        stream = await watch(served, "until=settled")
        events = await stream.take(22)

    await server.kill()
    await readyz(served, "degraded")
    again = await served.stream("order")
    assert await again.take(22) == events, "what there is is served without Temporal"
    again.close()

    await server.start()
    client = await server.ready()
    await readyz(served, "ready")
    async with Worker(client, task_queue="q", workflows=[Talks], activities=[stream_numbers]):
        await client.get_workflow_handle("order").signal(Talks.go)
        async with asyncio.timeout(60):
            events += await stream.rest()
    assert [e["offset"] for e in events] == list(range(len(events)))
    assert [e["data"] for e in events if e["topic"] == "number"] == list(range(20))
    assert [e["topic"] for e in events[-2:]] == ["$run.closed", "$session.settled"]


async def test_an_input_that_waits_for_temporal_says_so_and_how_to_ask_for_its_outcome(
    server: TemporalServer, served: Served
) -> None:
    await server.start()
    client = await server.ready()
    await client.start_workflow(Talks.run, args=["completes", 3], id="order", task_queue="nobody")
    stream = await watch(served)
    assert (await stream.next())["topic"] == "$run.started"
    await server.kill()
    await readyz(served, "degraded")
    command = ("input", "order", "go", "--kind", "signal", "--id", "go-1", "--wait", "2", "--url", served.url)
    code, out, err = await wakeline(*command)
    assert (code, json.loads(out)) == (1, {"id": "go-1", "status": "accepted"})
    assert err.startswith("There is no outcome after 2 s; the gateway keeps the input and sends it once.")
    assert "--id go-1" in err
    await server.start()
    await readyz(served, "ready")
    async with asyncio.timeout(60):
        while (await served.call("GET", "/v1/sessions/order/inputs/go-1"))[1]["status"] != "completed":
            await asyncio.sleep(0.1)
    code, out, err = await wakeline(*command)
    assert (code, json.loads(out)["status"], err) == (0, "completed", "")
    stream.close()
