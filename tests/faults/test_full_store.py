"""PostgreSQL and NATS without space: nothing is acknowledged that is not stored, and with space everything continues."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.disk import Disk, small_disk
from tests.nats import NatsStore, connection_to, nats_cluster, nats_server
from tests.postgres import postgres_server
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.log.engines.nats import StreamState, link, survey_streams
from wakeline.gateway.log.engines.postgres import target, writer
from wakeline.gateway.settings import Settings

EVENTS = "/v1/sessions/s/events"


class Appends:
    """Appends numbered events, one after the other, and knows which were acknowledged."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.acknowledged: list[int] = []
        self.refused: list[int] = []

    async def one(self) -> str:
        """Append once; `ok`, or the code of the error, which says when to come again."""
        number = len(self.acknowledged) + len(self.refused)
        event = {"topic": "t", "data": {"n": number, "noise": os.urandom(20_000).hex()}}
        async with self.served.http.post(EVENTS, json={"events": [event]}) as answer:
            if answer.status == 200:
                self.acknowledged.append(number)
                return "ok"
            self.refused.append(number)
            assert int(answer.headers["Retry-After"]) > 0
            return str((await answer.json())["error"]["code"])

    async def until(self, *codes: str) -> str:
        """Append until one of these is the answer."""
        async with asyncio.timeout(90):
            while (code := await self.one()) not in codes:
                await asyncio.sleep(0.02)
        return code

    async def stored(self) -> list[int]:
        """The events that are there."""
        stream = await self.served.stream("s", "from=beginning")
        _, session = await self.served.call("GET", "/v1/sessions/s")
        return [event["data"]["n"] for event in await stream.take(session["next_offset"])]


@asynccontextmanager
async def appends_to(address: str) -> AsyncIterator[Appends]:
    settings = Settings(engine=address, port=0, no_auth=True, leave_within=0)
    async with gateway(settings) as url, Served(url) as served:
        yield Appends(served)


async def readyz(served: Served, status: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            _, answer = await served.call("GET", "/readyz")
            if answer["status"] == status:
                assert isinstance(answer, dict)
                return answer
            await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the gateway wait for seconds where it waits for many."""
    for module, name, seconds in (
        (target, "FULL_SECONDS", 1.0),
        (writer, "_UNKNOWN_SECONDS", 2.0),
        (link, "TROUBLE_SECONDS", 1.0),
        (link, "_UNKNOWN_SECONDS", 1.0),
    ):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def _unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the gateway not wait long for NATS, which does not answer without space."""
    monkeypatch.setattr(link, "CALL_SECONDS", 0.4)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    async with small_disk(tmp_path / "disk", "64m") as disk:
        yield disk


async def test_a_full_disk_of_postgres_is_answered_507_and_reads_are_served(disk: Disk) -> None:
    with postgres_server(disk=disk) as server:
        async with appends_to(server.address()) as appends:
            for _ in range(3):
                assert await appends.one() == "ok"
            disk.fill()
            for _ in range(20):
                await appends.until("storage_full")
            ready = await readyz(appends.served, "degraded")
            assert ready["log"].startswith("full: PostgreSQL has no space")
            assert await appends.stored() == appends.acknowledged
            disk.make_room()
            await appends.until("ok")
            assert (await readyz(appends.served, "ready"))["log"] == "ok"
            assert await appends.stored() == appends.acknowledged


async def test_a_full_disk_of_the_log_of_postgres_loses_nothing_that_was_acknowledged(disk: Disk) -> None:
    with postgres_server(disk=disk, log_alone=True) as server:
        async with appends_to(server.address()) as appends:
            for _ in range(3):
                assert await appends.one() == "ok"
            disk.fill()
            async with asyncio.timeout(60):
                while not server.has_panicked():  # it ends all connections, and recovers, or stops
                    await appends.one()
            disk.make_room()
            if server.has_ended():
                await asyncio.to_thread(server.start)
            await appends.until("ok")
            await readyz(appends.served, "ready")
            stored = await appends.stored()
            assert set(appends.acknowledged) <= set(stored)
            assert len(stored) == len(set(stored))


async def test_nats_at_its_limit_answers_507_and_continues_with_a_larger_one() -> None:
    with nats_server(holds="1MB") as store:
        server = store.servers[0]
        async with appends_to(store.address("full")) as appends:
            await appends.until("storage_full")
            assert (await readyz(appends.served, "degraded"))["log"].startswith("full: NATS has no space")
            assert (await appends.served.call("DELETE", "/v1/sessions/s"))[0] == 507
            assert await appends.stored() == appends.acknowledged
            await asyncio.to_thread(server.stop)
            server.holds("64MB")
            await asyncio.to_thread(server.start)
            await appends.until("ok")
            assert (await readyz(appends.served, "ready"))["log"] == "ok"
            assert await appends.stored() == appends.acknowledged


@pytest.mark.usefixtures("_unanswered")
async def test_a_full_disk_of_nats_is_answered_503_until_the_server_is_restarted_with_space(disk: Disk) -> None:
    with nats_server(on=disk) as store:
        server = store.servers[0]
        async with appends_to(store.address("full")) as appends:
            for _ in range(3):
                await appends.until("ok")
            disk.fill()
            await appends.until("storage_failed")
            _, ready = await appends.served.call("GET", "/readyz")
            assert ready["log"].endswith("does not answer")
            disk.make_room()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await appends.until("ok")
            assert (await readyz(appends.served, "ready"))["log"] == "ok"
            stored = await appends.stored()
            assert set(appends.acknowledged) <= set(stored)
            assert len(stored) == len(set(stored))


@pytest.mark.usefixtures("_unanswered")
async def test_a_full_disk_of_a_node_stops_a_stream_for_no_longer_than_an_election(disk: Disk) -> None:
    with nats_cluster(first_on=disk) as store:
        address = store.address("full")
        async with appends_to(address) as appends:
            await appends.until("ok")
            (stream,) = [
                name for name, state in (await shown(address)).items() if "sessions" in name and state.messages
            ]
            await lead(store, address, stream, "n0")
            disk.fill()
            for _ in range(20):
                await appends.until("ok")
            state = (await shown(address))[stream]
            assert (state.leader != "n0", state.current, state.replicas) == (True, 2, 3)
            disk.make_room()
            await asyncio.to_thread(store.servers[0].stop)
            await asyncio.to_thread(store.servers[0].start)
            async with asyncio.timeout(60):
                while any(state.current != 3 for state in (await shown(address)).values()):
                    await asyncio.sleep(0.1)
            await appends.until("ok")
            stored = await appends.stored()
            assert set(appends.acknowledged) <= set(stored)
            assert len(stored) == len(set(stored))


async def shown(address: str) -> dict[str, StreamState]:
    """The streams of a store, by their names."""
    return {state.name: state for state in await survey_streams(address)}


async def lead(store: NatsStore, address: str, stream: str, node: str) -> None:
    """Have a node lead a stream."""
    placement = msgspec.json.encode({"placement": {"preferred": node}})
    async with connection_to(store.servers[1]) as connection, asyncio.timeout(60):
        while (await shown(address))[stream].leader != node:
            await connection.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", placement, timeout=5)
            await asyncio.sleep(0.2)
