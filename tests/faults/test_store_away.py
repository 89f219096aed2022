"""A store that is away for seconds: writes are refused with the time of the next attempt, and devices stay connected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from tests.nats import NatsServer, nats_server
from tests.postgres import PostgresServer, postgres_server
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

EVENTS = "/v1/sessions/s/events"
SECONDS = 3.0


@contextmanager
def server_of(kind: str) -> Iterator[tuple[PostgresServer | NatsServer, str]]:
    """A server that the test may stop, and the address of a store on it."""
    if kind == "PostgreSQL":
        with postgres_server() as server:
            yield server, server.address()
    else:
        with nats_server() as store:
            yield store.servers[0], store.address("away")


async def refuse(served: Served, method: str, path: str, **how: Any) -> None:
    """Expect that a request is refused, and that the answer says when to come again."""
    async with served.http.request(method, path, **how) as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await answer.json())["error"]["code"] == "storage_failed"


async def next_on(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The next event of a feed."""
    while True:
        message = await socket.receive_json(timeout=60)
        if message["type"] == "events" and message["events"]:
            event: dict[str, Any] = message["events"][0]
            return event


@pytest.mark.parametrize("kind", ["PostgreSQL", "NATS"])
async def test_a_device_keeps_its_connection_while_the_store_is_away_and_receives_the_next_event_on_it(
    kind: str,
) -> None:
    with server_of(kind) as (server, address):
        settings = Settings(engine=address, port=0, no_auth=True, leave_within=0)
        async with gateway(settings) as url, Served(url) as served:
            await served.publish("s", {"topic": "t", "data": "before"})
            stream = await served.stream("s", "from=beginning")
            socket = await served.http.ws_connect("/v1/feed")
            await socket.send_json({"type": "subscribe", "session": "s", "from": "beginning"})
            assert (await stream.next())["data"] == (await next_on(socket))["data"] == "before"
            await asyncio.to_thread(server.stop)
            away_until = time.monotonic() + SECONDS
            while time.monotonic() < away_until:
                await refuse(served, "POST", EVENTS, json={"events": [{"topic": "t", "data": "during"}]})
                await refuse(served, "GET", "/v1/sessions/another/events", headers={"Accept": "text/event-stream"})
            assert (await served.call("GET", "/readyz"))[0] == 503
            assert not socket.closed
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(60):
                while (await served.call("POST", EVENTS, json={"events": [{"topic": "t", "data": "after"}]}))[0] != 200:
                    await asyncio.sleep(0.05)
            for event in (await stream.next(), await next_on(socket)):
                assert (event["offset"], event["data"]) == (1, "after")
            await socket.close()
