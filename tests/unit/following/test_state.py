"""What a run is doing: when it is looked at."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from tests.unit.following.followed import World, steps
from tests.unit.following.test_rests import parts_of
from tests.unit.following.test_watch import RUN, watch_of
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.watching import state as watching
from wakeline.gateway.following.watching import waiting
from wakeline.gateway.following.watching.state import StateWatch
from wakeline.gateway.sessions import RunState
from wakeline.temporal.history import ActivityAttempt, History


async def unasked(*_: Any) -> Any:
    raise AssertionError("expected nothing to be asked or told")


READER = cast(Any, SimpleNamespace(ask=unasked))


@pytest.mark.parametrize("when", ["during the look", "between two looks", "after that"])
async def test_what_happens_is_looked_at_whenever_it_happens(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_of()
    parts = World(monkeypatch).parts(audience=SimpleNamespace(watches=lambda _: True))
    state = StateWatch(Subject("a", RUN, parts), RUN.run_id, watch, READER)
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
        async with asyncio.timeout(60):
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


@pytest.mark.parametrize("after", range(1, 20))
async def test_what_was_told_is_told_to_be_over_although_looking_was_stopped_before_it_was_written_down(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch)
    state = StateWatch(Subject("a", RUN, parts_of(world, places=1)), RUN.run_id, watch_of(), READER)
    activities = {"1": {"activity": "1", "attempt": 2, "state": "retrying"}}
    telling = asyncio.create_task(state._report(RunState(activities, {"for": "input"}, "run/7/0/0"), {"1": 5}, {}))
    await steps(after)
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await steps()
    await state._report(RunState({}, None, "run/9/0/0"), {}, {})
    there = await world.engine.state("a")
    page = await world.engine.read("a", 0, before=100) if there is not None else None
    told = [msgspec.json.decode(event.json()) for event in page.events] if page is not None else []
    for topic in ("$run.waiting", "$activity.retrying"):
        last = [event["data"] for event in told if event["topic"] == topic][-1:]
        assert all(data.get("over") or ("for" in data and data["for"] is None) for data in last)
    (noted,) = await world.runs.of("a")
    assert (noted.waiting, noted.retrying) == (None, {})


@pytest.mark.parametrize("after", range(1, 20))
@pytest.mark.parametrize("source", ["history", "description"])
async def test_a_missed_heartbeat_is_reported_although_looking_was_stopped_before_it_was(
    source: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, watch = World(monkeypatch), watch_of()
    state = StateWatch(Subject("a", RUN, parts_of(world, places=1)), RUN.run_id, watch, READER)
    retried: dict[str, Any] = {"activity": "1", "activity_type": "Pay", "attempt": 2, "state": "retrying"}
    if source == "description":
        retried["stalled"] = 1
    else:
        watch.history.stalled.append((5, ActivityAttempt("1", "Pay", 1)))
    seen = RunState({"1": retried}, None, "run/7/0/5")
    telling = asyncio.create_task(state._report(seen, {"1": 5}, {"1": 5}))
    await steps(after)
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await steps()
    for _ in range(2):
        await state._report(seen, {"1": 5}, {"1": 5})
    page = await world.engine.read("a", 0, before=100)
    topics = [msgspec.json.decode(event.json())["topic"] for event in page.events]
    assert sorted(topics) == ["$activity.retrying", "$activity.stalled"]
    assert watch.history.stalled == []


async def test_a_timer_that_is_known_by_the_time_the_workflow_answers_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_QUIET", 0.0)
    watch, description = watch_of(), DescribeWorkflowExecutionResponse()
    description.workflow_execution_info.history_length = 7

    async def describe() -> DescribeWorkflowExecutionResponse:
        return description

    async def ask(*_: Any) -> WorkflowMetadata:
        watch.history, watch.tells = History(), True  # it is followed again meanwhile
        watch.history.timers[5] = datetime(2026, 12, 1, tzinfo=UTC)
        return WorkflowMetadata()

    monkeypatch.setattr(watch, "describe", describe)
    subject = Subject("a", RUN, parts_of(World(monkeypatch), places=1))
    state = StateWatch(subject, RUN.run_id, watch, cast(Any, SimpleNamespace(ask=ask)))
    for _ in range(4):
        await state.look()
    assert state.state.waiting == {"for": "timer", "until": "2026-12-01T00:00:00.000Z"}
