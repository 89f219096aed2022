"""Who is followed: what callers who leave, come together or come late make of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.temporal.followed import World, followed, steps


@pytest.mark.parametrize("after", range(30))
async def test_a_run_that_is_written_down_is_followed_although_the_caller_has_left(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch)
    followers = world.followers()
    await followers.start()
    registering = asyncio.create_task(followers.register("a", None))
    await steps(after)
    registering.cancel()
    await asyncio.gather(registering, return_exceptions=True)
    await steps()
    assert bool(await world.runs.of("a")) == (followed(followers, "a") is not None)
    await followers.stop()


async def test_nothing_is_left_running_where_a_child_is_found_while_everything_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    before = asyncio.all_tasks()
    followers = world.followers()
    await followers.start()
    stop = followers._pool.stop

    async def stop_late(*_: Any) -> None:
        followers._child("default", "child", "run-of-child")
        await steps(2)
        await stop()

    monkeypatch.setattr(followers._pool, "stop", stop_late)
    await followers.stop()
    await steps(3)
    assert asyncio.all_tasks() == before
