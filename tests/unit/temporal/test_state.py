"""What a run is doing: when it is looked at."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.temporal.test_watch import RUN, watch_of
from wakeline.gateway.temporal.watching import state as watching
from wakeline.gateway.temporal.watching.state import StateWatch


async def unasked(*_: Any) -> Any:
    raise AssertionError("expected nothing to be asked or told")


@pytest.mark.parametrize("when", ["during the look", "between two looks", "after that"])
async def test_what_happens_is_looked_at_whenever_it_happens(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_of()
    state = StateWatch(
        RUN,
        watch,
        cast(Any, None),
        explain=unasked,
        metadata=unasked,
        watched=lambda: True,
        note=unasked,
        turn=RUN.run_id,
    )
    looks = 0
    pausing, pause = asyncio.Event(), asyncio.Event()

    async def look() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1 and when == "during the look":
            watch.nudge()
        return False

    async def sleep(seconds: float) -> None:
        pausing.set()
        await pause.wait()

    monkeypatch.setattr(state, "look", look)
    monkeypatch.setattr(watching, "asyncio", SimpleNamespace(sleep=sleep))
    following = asyncio.create_task(state.follow())
    try:
        async with asyncio.timeout(20):
            await pausing.wait()
        assert looks == 1
        if when == "between two looks":
            watch.nudge()
        pause.set()
        for _ in range(5):
            await asyncio.sleep(0)
        if when == "after that":
            watch.nudge()
        for _ in range(10):
            await asyncio.sleep(0)
        assert looks == 2
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
