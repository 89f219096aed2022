"""Whole gateways on one store: a simulated one that is slow and loses wake-ups, PostgreSQL, and NATS."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import nats_wire, postgres_wire
from tests.nats import NatsStore
from tests.postgres import PostgresServer
from tests.sharing import Faults, SharedEngine, SharedStore
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.log.engines.nats import NatsEngine
from wakeline.gateway.log.engines.postgres import PostgresEngine
from wakeline.gateway.ownership.ownership import SHARDS
from wakeline.gateway.settings import Settings

# For tests of a simulated store's faults, or of what it keeps.
simulated = pytest.mark.parametrize("kept_in", ["simulated"])
FAULTS = Faults(latency=0.005, lost_wakeups=0.3, repeated_wakeups=0.3)


class Distant:
    """A gateway's way to a server, which can be cut."""

    wires: Sequence[nats_wire.Wire | postgres_wire.Wire]

    @property
    def cut(self) -> bool:
        return self.wires[0].away

    @cut.setter
    def cut(self, value: bool) -> None:
        for wire in self.wires:
            wire.away = value
            if value:
                wire.cut_all()


class OnPostgres(Distant, PostgresEngine):
    """An engine of a gateway that reaches PostgreSQL by a wire."""

    def __init__(self, address: str, wire: postgres_wire.Wire) -> None:
        super().__init__(wire.address(address))
        self.wires = [wire]


class OnNats(Distant, NatsEngine):
    """An engine of a gateway that reaches each node of NATS by a wire."""

    def __init__(self, address: str, wires: Sequence[nats_wire.Wire]) -> None:
        for wire in wires:
            address = wire.address(address)
        super().__init__(address)
        self.wires = wires


AnEngine = SharedEngine | OnPostgres | OnNats


class Gateway(Served):
    """One of the gateways, and its way to the store."""

    def __init__(self, url: str, engine: AnEngine) -> None:
        super().__init__(url)
        self.engine = engine


Start = Callable[..., Awaitable[Gateway]]


async def shared_out(gateways: Sequence[Gateway]) -> None:
    """Return when each gateway has its share of the shards."""
    async with asyncio.timeout(60):
        while True:
            shards = await gateways[0].engine.records("leases/shard/")
            counts = Counter(record.value for record in shards).values()
            if len(shards) == SHARDS and len(counts) == len(gateways) and max(counts) - min(counts) <= 1:
                return
            await asyncio.sleep(0.02)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test of whole gateways on all stores, unless it is for a simulated one."""
    own = {"kept_in", "store"} & set(inspect.signature(metafunc.function).parameters)
    chosen = any(mark.args[0] == "kept_in" for mark in metafunc.definition.iter_markers("parametrize"))
    if "start" in metafunc.fixturenames and not own and not chosen:
        metafunc.parametrize("kept_in", ["simulated", "postgres", "nats", "nats_of_three"])


@pytest.fixture
def kept_in() -> str:
    return "simulated"


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
async def start(store: SharedStore, kept_in: str, request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Start gateways on the store; each ends with the test."""
    async with AsyncExitStack() as stack:
        seeds = iter(range(100))
        server = None if kept_in == "simulated" else request.getfixturevalue(kept_in)
        address = ""
        if isinstance(server, PostgresServer):
            address = await server.database()
        elif isinstance(server, NatsStore):
            address = server.address()
            stack.push_async_callback(server.remove, urlsplit(address).path[1:])

        async def engine_of(faults: Faults) -> AnEngine:
            if isinstance(server, PostgresServer):
                return OnPostgres(address, await stack.enter_async_context(postgres_wire.wire_to(server.port)))
            if isinstance(server, NatsStore):
                ports = [node.port for node in server.servers]
                return OnNats(address, [await stack.enter_async_context(nats_wire.wire_to(port)) for port in ports])
            return store.engine(faults, next(seeds))

        async def one(faults: Faults = FAULTS, **changed: Any) -> Gateway:
            engine = await engine_of(faults)
            asked = {"no_auth": not any(key.startswith("token_") for key in changed)}
            settings = Settings(**{"port": 0, "lease": 1.0, **asked, **changed})
            url = await stack.enter_async_context(gateway(settings, engine=engine))
            served = Gateway(url, engine)
            stack.callback(setattr, engine, "cut", False)  # one that ends without its store waits for it for seconds
            await stack.enter_async_context(served)
            return served

        yield one
