"""A run's turn comes after the rest of an earlier run, wherever that rest is read and whatever becomes of its gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.following.followed import World, run
from wakeline.gateway.following import turns
from wakeline.gateway.following.pool import FollowerPool
from wakeline.gateway.log import NewSession
from wakeline.gateway.ownership import Ownership


class Gateways:
    """Gateways that follow the run `b` and read the rest of the run `a`; the test divides them.

    Attributes:
        order: What was added to the log.
        hurried: The gateways that were told that the later run waits.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setattr(turns, "RETRY_SECONDS", 0.05)
        self.world, self.order = World(monkeypatch, **settings), list[str]()
        self.waits = 0
        self.may_end = asyncio.Event()
        self.pools: list[FollowerPool] = []
        self._monkeypatch = monkeypatch
        self._owned: list[set[str]] = []
        self._ownerships: list[Ownership] = []
        self.world.follow = self._follow

    async def _follow(self, follower: Any) -> None:
        if follower.run.open:
            await follower.parts.earlier("s", follower.run)
            self.order.append("the later run begins")
        else:
            self.waits += 1
            await follower.hurried.wait()
            await self.may_end.wait()
            self.order.append("the rest is added")
            await self.world.runs.put("s", run("a", status="terminated", owed=False))
            return
        await asyncio.Event().wait()

    async def start(self, *names: str) -> None:
        """Start a gateway that owns these workflows."""
        if not self.pools:
            await self.world.engine.create_session(NewSession("s"))
            await self.world.runs.put("s", run("a", status="terminated", owed=True))
            await self.world.runs.put("s", run("b"))
        ownership, owned = Ownership(self.world.engine, 5, shared=True), set(names)
        self._monkeypatch.setattr(ownership, "owns", owned.__contains__)
        self._monkeypatch.setattr(ownership.wakeups, "_owns", owned.__contains__)
        self._owned.append(owned)
        self._ownerships.append(ownership)
        self.pools.append(self.world.pool(ownership))
        await ownership.wakeups.start()
        await self.pools[-1].start()

    def move(self, *, to: int) -> None:
        """Move the lease of the rest to a gateway."""
        for number, (owned, ownership) in enumerate(zip(self._owned, self._ownerships, strict=True)):
            (owned.add if number == to else owned.discard)("a")
            for listener, _ in ownership._listeners:
                listener()

    async def stop(self) -> None:
        for pool, ownership in zip(self.pools, self._ownerships, strict=True):
            await pool.stop()
            await ownership.wakeups.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_run_waits_for_a_rest_whose_lease_moves_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    gateways = Gateways(monkeypatch, drain_grace=600)
    await gateways.start("a", "b")
    await gateways.start()
    await until(lambda: gateways.waits == 1)
    gateways.move(to=1)
    gateways.may_end.set()
    await until(lambda: "the later run begins" in gateways.order)
    assert gateways.order == ["the rest is added", "the later run begins"]
    await gateways.stop()


async def test_a_run_waits_for_the_rest_of_a_killed_gateway_until_another_one_has_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_LATE_SECONDS", 0)
    gateways = Gateways(monkeypatch, drain_grace=0, lease=600)
    gateways.may_end.set()
    looked, latest = 0, gateways.world.runs.latest

    async def look(session: str, name: str) -> Any:
        nonlocal looked
        looked += 1
        return await latest(session, name)

    monkeypatch.setattr(gateways.world.runs, "latest", look)
    await gateways.start("b")  # the owner of the rest was killed
    await until(lambda: looked > 3 or bool(gateways.order))
    assert not gateways.order
    gateways.move(to=0)
    await until(lambda: "the later run begins" in gateways.order)
    assert gateways.order == ["the rest is added", "the later run begins"]
    await gateways.stop()
