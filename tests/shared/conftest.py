"""Two whole gateways on one store that is slow and loses wake-ups."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.sharing import Faults, SharedEngine, SharedStore
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.ownership.ownership import SHARDS
from wakeline.gateway.settings import Settings

FAULTS = Faults(latency=0.005, lost_wakeups=0.3, repeated_wakeups=0.3)


class Gateway(Served):
    """One of the gateways, and its way to the store."""

    def __init__(self, url: str, engine: SharedEngine) -> None:
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


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
async def start(store: SharedStore) -> AsyncIterator[Start]:
    """Start gateways on the store; each ends with the test."""
    async with AsyncExitStack() as stack:
        seeds = iter(range(100))

        async def one(faults: Faults = FAULTS, **changed: Any) -> Gateway:
            engine = store.engine(faults, next(seeds))
            asked = {"no_auth": not any(key.startswith("token_") for key in changed)}
            settings = Settings(**{"port": 0, "lease": 1.0, **asked, **changed})
            url = await stack.enter_async_context(gateway(settings, engine=engine))
            served = Gateway(url, engine)
            await stack.enter_async_context(served)
            return served

        yield one
