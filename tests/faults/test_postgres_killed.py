"""Two gateways on one PostgreSQL: under load, a gateway and the server are killed, and the other gateway goes on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.test_gateway_killed import SESSIONS, Load, check, until_seen, whole_log
from tests.gateways import GatewayProcess
from tests.postgres import PostgresServer, postgres_server
from tests.soak import times
from tests.support import Served
from wakeline.client import SessionClient

KILLS = times(3, 12)


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server that the test may kill, and that a power cut would not harm either."""
    with postgres_server(fsync="on", full_page_writes="on", autovacuum="on") as server:
        yield server


@pytest.fixture
async def pair(durable: PostgresServer, tmp_path: Path) -> AsyncIterator[tuple[GatewayProcess, GatewayProcess]]:
    environment = {"WAKELINE_ENGINE": await durable.database()}
    pair = tuple(GatewayProcess(tmp_path / name, environment=environment) for name in ("a", "b"))
    await asyncio.gather(*(gateway.start() for gateway in pair))
    yield pair[0], pair[1]
    for gateway in pair:
        assert await gateway.stop() == 0


async def test_what_is_published_at_one_gateway_is_read_live_at_the_other(
    pair: tuple[GatewayProcess, GatewayProcess],
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


@pytest.mark.timeout(240 + 6 * KILLS)
async def test_kills_of_a_gateway_and_of_the_server_lose_and_double_nothing(
    pair: tuple[GatewayProcess, GatewayProcess], durable: PostgresServer
) -> None:
    chance = random.Random(11)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(SessionClient(gateway.url, retry_timeout=timedelta(0))) for gateway in pair
        ]
        loads = [Load(client) for client in clients]
        publishers = [
            asyncio.ensure_future(publish(session, f"{publish.__name__}-{at}-{n}", random.Random(n)))
            for at, load in enumerate(loads)
            for session in SESSIONS
            for publish in (load.idempotent, load.plain)
            for n in range(2)
        ]
        devices = [asyncio.ensure_future(load.device(s, begin)) for load in loads for s in SESSIONS for begin in (0, 2)]
        for number in range(KILLS):
            await asyncio.sleep(chance.uniform(0.3, 1.0))
            if number % 3 == 1:
                await asyncio.to_thread(durable.stop)
                await asyncio.to_thread(durable.start)
            else:
                await pair[0].kill()
                await pair[0].start(wait=chance.random() < 0.8)
        await pair[0].ready()
        await asyncio.sleep(1)
        for load in loads:
            load.stopping = True
        await asyncio.gather(*publishers)
        logs = {session: await whole_log(clients[1], session) for session in SESSIONS}
        for load in loads:
            await until_seen(load, logs)
        for device in devices:
            device.cancel()
        await asyncio.gather(*devices)
    loads[0].seen += loads[1].seen
    for session, log in logs.items():
        loads[0].acknowledged[session] |= loads[1].acknowledged[session]
        loads[0].attempted[session] |= loads[1].attempted[session]
        check(session, log, loads[0])
    print(json.dumps({session: len(log) for session, log in logs.items()}))
