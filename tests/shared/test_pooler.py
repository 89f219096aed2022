"""Two gateways reach PostgreSQL through a pooler in transaction mode, where notifications do not arrive."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.pooler import pooler, until_it_serves
from tests.postgres import PostgresServer
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings


async def test_gateways_behind_a_pooler_poll_and_say_so(postgres: PostgresServer) -> None:
    address = await postgres.database()
    async with AsyncExitStack() as stack:
        port = stack.enter_context(pooler(postgres))
        pooled = f"{address.replace(f':{postgres.port}/', f':{port}/')}?statement_cache_size=0"
        await until_it_serves(pooled.partition("?")[0])
        both = []
        for _ in range(2):
            settings = Settings(engine=pooled, port=0, no_auth=True, lease=2.0)
            url = await stack.enter_async_context(gateway(settings))
            both.append(await stack.enter_async_context(Served(url)))
        _, ready = await both[0].call("GET", "/readyz")
        assert (ready["status"], ready["log"][:36]) == ("degraded", "ok, but notifications do not arrive:")
        await both[0].publish("s", {"topic": "t", "data": 0})
        streams = [await served.stream("s") for served in both for _ in range(2)]
        for number in range(1, 30):
            headers = {"publisher": "p", "sequence": str(number - 1)}
            await both[number % 2].publish("s", {"topic": "t", "data": number}, **headers)
        async with asyncio.timeout(60):
            for stream in streams:
                assert [event["data"] for event in await stream.take(30)] == list(range(30))
        assert (await both[1].call("DELETE", "/v1/sessions/s"))[0] == 204
        async with asyncio.timeout(60):
            for stream in streams:
                assert await stream.rest() == []
