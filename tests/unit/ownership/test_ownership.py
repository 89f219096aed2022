"""Gateways divide the shards of a shared store among themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.sharing import Faults, SharedStore
from wakeline.gateway.ownership import Ownership

NAMES = [f"s{number}" for number in range(200)]


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def share(gateway: Ownership) -> set[str]:
    return {name for name in NAMES if gateway.owns(name)}


async def test_a_gateway_that_stops_leaves_its_share_to_the_other_before_its_lease_expires() -> None:
    store, lease = SharedStore(), 4.0
    first, second = (Ownership(store.engine(Faults(latency=0.001), n), lease, shared=True) for n in range(2))
    await first.start()
    assert share(first) == set(NAMES)
    await second.start()
    await until(lambda: bool(share(second)) and share(first) | share(second) == set(NAMES), 2 * lease)
    assert not share(first) & share(second)
    await second.stop()
    assert await first.gateways() == {first.name: True}
    await until(lambda: share(first) == set(NAMES), 0.75 * lease)
    await first.stop()
    assert await store.memory.records("leases/") == []
