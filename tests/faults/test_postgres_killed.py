"""Two gateways on one PostgreSQL: under load, a gateway and the server are killed, and the other gateway goes on."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.pairs import Pair, gateways_on, nothing_is_lost
from tests.postgres import PostgresServer, postgres_server
from tests.soak import times
from tests.support import Served

KILLS = times(3, 12)


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server that the test may kill, and that a power cut would not harm either."""
    with postgres_server(fsync="on", full_page_writes="on", autovacuum="on") as server:
        yield server


@pytest.fixture
async def pair(durable: PostgresServer, tmp_path: Path) -> AsyncIterator[Pair]:
    async with gateways_on(await durable.database(), tmp_path) as pair:
        yield pair


async def test_what_is_published_at_one_gateway_is_read_live_at_the_other(
    pair: Pair,
) -> None:
    async with Served(pair[0].url) as first, Served(pair[1].url) as second:
        await first.publish("s", {"topic": "t", "data": 0})
        streams = [await served.stream("s", "from=beginning") for served in (first, second)]
        for number in range(1, 50):
            await (first, second)[number % 2].publish("s", {"topic": "t", "data": number})
        for stream in streams:
            assert [(e["offset"], e["data"]) for e in await stream.take(50)] == [(n, n) for n in range(50)]
        status, ready = await second.call("GET", "/readyz")
        assert (status, ready["status"], ready["log"]) == (200, "ready", "ok")
        counted = [await served.metric("wakeline_events_total") for served in (first, second)]
        assert sum(counted) == 50
    assert "secret" not in pair[0].log.read_text()


async def test_nobody_learns_from_an_answer_where_the_server_is(pair: Pair, durable: PostgresServer) -> None:
    """Anybody may ask `/readyz`; the log has the reason, for those who run the gateway."""
    async with Served(pair[0].url) as served:
        await served.publish("s", {"topic": "t"})
        await asyncio.to_thread(durable.stop)
        answers = [
            await served.call("GET", "/readyz"),
            await served.call("POST", "/v1/sessions/s/events", json={"events": [{"topic": "t"}]}),
            await served.call("GET", "/v1/sessions"),
        ]
        await asyncio.to_thread(durable.start)
    assert [status for status, _ in answers] == [503, 503, 503]
    said = json.dumps(answers)
    assert "PostgreSQL failed: " in answers[0][1]["log"]
    assert "127.0.0.1" not in said
    assert str(durable.port) not in said
    assert f"127.0.0.1:{durable.port}" in pair[0].log.read_text()


@pytest.mark.timeout(480 + 6 * KILLS)
async def test_kills_of_a_gateway_and_of_the_server_lose_and_double_nothing(
    pair: Pair, durable: PostgresServer
) -> None:
    async def kills(chance: random.Random) -> None:
        for number in range(KILLS):
            await asyncio.sleep(chance.uniform(0.3, 1.0))
            if number % 3 == 1:
                await asyncio.to_thread(durable.stop, signal.SIGKILL)
                await asyncio.to_thread(durable.start)
            else:
                await pair[0].kill()
                await pair[0].start(wait=chance.random() < 0.8)
        await pair[0].ready()

    await nothing_is_lost(pair, kills)
