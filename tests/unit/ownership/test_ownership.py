"""Gateways divide the shards of a shared store among themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic

from tests.sharing import Faults, SharedStore
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.ownership.ownership import SHARDS

NAMES = [f"s{number}" for number in range(200)]
ROUNDS = 5
"""A busy machine is late now and then: once in so many rounds it must be in time."""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def share(gateway: Ownership) -> set[str]:
    return {name for name in NAMES if gateway.owns(name)}


async def divided(one: Ownership, other: Ownership) -> None:
    """Return when both gateways have a share, and together have everything."""
    await until(lambda: share(one) and share(other) and share(one) | share(other) == set(NAMES))
    assert not share(one) & share(other)


async def seconds_until_it_has_all(gateway: Ownership) -> float:
    began = monotonic()
    await until(lambda: share(gateway) == set(NAMES))
    return monotonic() - began


async def test_a_gateway_that_stops_leaves_its_share_to_the_other_before_its_lease_expires() -> None:
    store, lease, took = SharedStore(), 4.0, list[float]()
    first = Ownership(store.engine(Faults(latency=0.001)), lease, shared=True)
    await first.start()
    assert share(first) == set(NAMES)
    while not took or (took[-1] >= 0.75 * lease and len(took) < ROUNDS):
        second = Ownership(store.engine(Faults(latency=0.001), len(took)), lease, shared=True)
        await second.start()
        await divided(first, second)
        await second.stop()
        assert await first.gateways() == {first.name: True}
        took.append(await seconds_until_it_has_all(first))
    assert min(took) < 0.75 * lease, took
    await first.stop()
    assert await store.memory.records("leases/") == []


async def seconds_until_a_share_is_taken_over(lease: float) -> float:
    """The seconds after which one of two gateways has everything, because the other leaves."""
    store = SharedStore()
    first, second = (Ownership(store.engine(Faults(latency=0.001), n), lease, shared=True) for n in range(2))
    changes: list[bool] = []
    gains: list[int] = []
    first.listen(lambda: changes.append(bool(share(first))))
    first.listen(lambda: gains.append(len(share(first))), gains=True)
    await first.start()
    await second.start()
    await divided(first, second)
    await first.leave()
    assert (share(first), changes[-1]) == (set(), False)
    assert gains == [len(NAMES)], "what it has lost is no gain"
    assert await second.gateways() == {first.name: True, second.name: True}
    took = await seconds_until_it_has_all(second)
    await asyncio.sleep(lease / 2)  # rounds go on, and claim nothing
    assert (share(first), share(second)) == (set(), set(NAMES))
    await first.stop()
    await second.stop()
    assert await store.memory.records("leases/") == []
    return took


async def test_a_gateway_that_leaves_gives_up_its_share_and_still_counts_as_running() -> None:
    lease, took = 4.0, list[float]()
    while not took or (took[-1] >= 0.75 * lease and len(took) < ROUNDS):
        took.append(await seconds_until_a_share_is_taken_over(lease))
    assert min(took) < 0.75 * lease, took


async def test_a_gateway_has_its_shards_again_after_an_outage_although_the_store_is_slow() -> None:
    """A round takes a good part of a lease."""
    store, lease = SharedStore(), 2.0
    engine = store.engine(Faults(latency=0.001), 1)
    gateway = Ownership(engine, lease, shared=True)
    await gateway.start()
    assert share(gateway) == set(NAMES)
    engine.faults = Faults(latency=30.0)
    await until(lambda: not share(gateway))
    await asyncio.sleep(lease)
    engine.faults = Faults(latency=0.2)
    await until(lambda: share(gateway) == set(NAMES))
    engine.faults = Faults(latency=0.001)
    await gateway.stop()


async def keep_renewing(store: SharedStore, *names: str) -> None:
    """Be so many gateways that have leases of their own, and claim nothing."""
    while True:
        for name in names:
            key = f"leases/gateway/{name}"
            record = await store.memory.get_record(key)
            await store.memory.put_record(key, b"", revision=record.revision if record is not None else 0)
        await asyncio.sleep(0.05)


async def test_while_gateways_come_and_go_each_shard_has_an_owner_at_some_time() -> None:
    """Each gateway is killed as soon as it has claimed its share; it must not be the same share that all of them claim."""
    store, lease = SharedStore(), 0.5
    owned: set[str] = set()
    for number in range(SHARDS):
        await store.memory.put_record(f"leases/shard/{number}", b"dead", revision=0)
    renewing = asyncio.create_task(keep_renewing(store, "a", "b", "c"))
    try:
        for number in range(40):  # four, if the gateways that have ended did not count for the time of a lease
            engine = store.engine(Faults(), number)
            gateway = Ownership(engine, lease, shared=True)
            await gateway.start()
            await until(partial(share, gateway))
            owned |= share(gateway)
            engine.cut = True  # it is killed: it releases nothing
            await gateway.stop()
            if owned == set(NAMES):
                break
    finally:
        renewing.cancel()
    assert owned == set(NAMES)


async def test_a_gateway_that_stops_while_it_renews_its_leases_leaves_none() -> None:
    for latency in (0.002, 0.005, 0.01):
        store = SharedStore()
        gateway = Ownership(store.engine(Faults(latency=latency), 1), 0.5, shared=True)  # a round every 0.125 s
        await gateway.start()
        for _ in range(3):
            await asyncio.sleep(0.125)
        await gateway.stop()
        assert await store.memory.records("leases/") == []


def _knows(gateway: Ownership, other: Ownership) -> bool:
    return any(other.name in key for key in gateway._seen)


async def test_a_gateway_forgets_the_gateways_that_have_stopped() -> None:
    store = SharedStore()
    first = Ownership(store.engine(Faults(latency=0.001)), 0.5, shared=True)
    await first.start()
    for number in range(3):
        other = Ownership(store.engine(Faults(latency=0.001), number), 0.5, shared=True)
        await other.start()
        await until(partial(_knows, first, other))
        await other.stop()
    await until(lambda: len(first._seen) == SHARDS + 1)
    await first.stop()
