"""Who is followed: what callers who leave, come together or come late make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, cast

import msgspec
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from tests.unit.following.followed import SlowEngine, World, followed, run, steps
from wakeline.errors import WorkflowNotFoundError
from wakeline.gateway.delivery import Accept, Hub
from wakeline.gateway.following.following import Subject
from wakeline.gateway.log import NewSession, Record, SessionState
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.sessions import Runs


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
        followers._registrar.child(Subject("a", run("a"), followers._parts), "child", "run-of-child")
        await steps(2)
        await stop()

    monkeypatch.setattr(followers._pool, "stop", stop_late)
    await followers.stop()
    await steps(3)
    assert not asyncio.all_tasks() - before


class Answers:
    """Gives what Temporal says of a workflow when it is told to; what it says is what was so when it was asked."""

    def __init__(self, followers: Any) -> None:
        self.asked = 0
        self.started = False
        self.answers = asyncio.Event()
        self._find = followers._finder.find
        followers._finder.find = self.find

    async def find(self, connection: Any, workflow_id: str, run_id: str | None = None) -> Any:
        self.asked += 1
        there = self.started
        await self.answers.wait()
        if not there:
            raise WorkflowNotFoundError("Temporal has no such workflow")
        return await self._find(connection, workflow_id, run_id)


@pytest.mark.parametrize("after", range(4))
async def test_who_comes_when_a_workflow_has_started_finds_it_although_it_is_looked_for_already(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch)
    followers = world.followers()
    temporal = Answers(followers)
    await followers.start()
    early = [asyncio.create_task(followers.watch("a")) for _ in range(3)]
    await steps()
    assert temporal.asked == 1
    temporal.started = True
    late = [asyncio.create_task(followers.watch("a")) for _ in range(3)]
    await steps(after)
    temporal.answers.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*early, *late)
    assert followed(followers, "a") is not None
    await steps()
    assert not followers._lookups.running
    await followers.stop()


async def test_a_nudge_is_not_lost_to_a_look_that_began_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.engine.create_session(NewSession("a"))
    followers = world.followers()
    temporal = Answers(followers)
    await followers.start()
    async with world.hub.attach("a"):
        watching = asyncio.create_task(followers.watch("a"))
        await steps()
        assert temporal.asked == 1
        temporal.started = True
        followers.nudge("a", None)
        followers.nudge("a", None)
        await steps()
        temporal.answers.set()
        async with asyncio.timeout(60):
            await watching
        await steps(100)
        assert followed(followers, "a") is not None
    assert not followers._lookups.running
    await followers.stop()


async def test_a_nudge_during_a_look_counts_for_a_later_run_than_the_one_that_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, ends = World(monkeypatch), asyncio.Event()

    async def follow(follower: Any) -> None:
        await ends.wait()

    world.follow = follow
    await world.engine.create_session(NewSession("a"))
    followers = world.followers()
    temporal = Answers(followers)
    temporal.started = True
    await followers.start()
    async with world.hub.attach("a"):
        watching = asyncio.create_task(followers.watch("a"))
        await steps()
        followers.nudge("a", None)  # of the next run
        await steps()
        temporal.answers.set()
        async with asyncio.timeout(60):
            await watching
        await steps(100)
        assert followed(followers, "a") is not None
        asked = temporal.asked
        ends.set()
        await steps(100)
        assert temporal.asked > asked
    await followers.stop()


@pytest.mark.parametrize("activity_id", ["a", "another"])
async def test_a_workflow_is_found_while_an_activity_of_its_session_is_open(
    activity_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch)
    await world.engine.create_session(NewSession("a"))
    activity = msgspec.structs.replace(run(activity_id, activity=True), run="of-an-activity", run_id="of-an-activity")
    await world.runs.put("a", activity)
    followers = world.followers()
    await followers.start()
    await steps()
    assert followers.followed("a").keys() == {"of-an-activity"}
    async with world.hub.attach("a"):
        assert "a" in await followers._wanted.workflows(cast(Any, world.temporal))
        await followers.watch("a")
        await steps(100)
        assert followers.followed("a").keys() == {"of-an-activity", "run-of-a"}
        assert not await followers._wanted.workflows(cast(Any, world.temporal))
    await followers.stop()


class CountingEngine(SlowEngine):
    """Counts the calls that read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        self.reads += 1
        return await super().get_records(keys)

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        self.reads += 1
        return await super().state(session, publisher=publisher)


async def test_a_sweep_asks_nothing_for_a_session_whose_run_another_gateway_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    for session in ("a", "b"):
        await world.engine.create_session(NewSession(session))
    await world.runs.put("a", run("a"))
    await world.runs.put("b", run("b", status="completed"))
    elsewhere = Ownership(MemoryEngine(), 1, shared=True)  # it owns nothing
    followers = world.followers(elsewhere)
    async with world.hub.attach("a"), world.hub.attach("b"):
        assert await followers._wanted.workflows(cast(Any, world.temporal)) == ["b"]
        await world.runs.put("a", run("a", status="completed"))
        assert set(await followers._wanted.workflows(cast(Any, world.temporal))) == {"a", "b"}


async def test_the_cost_of_a_sweep_does_not_grow_with_found_times_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    engine = world.engine = CountingEngine()
    world.runs, world.accept = Runs(engine), Accept(engine)
    world.hub = Hub(engine, world.runs.settled)
    followers = world.followers()
    names = [f"a{number}" for number in range(100)]
    async with AsyncExitStack() as devices:
        for name in names:
            await engine.create_session(NewSession(name))
            await devices.enter_async_context(world.hub.attach(name))
        engine.reads = 0
        assert set(await followers._wanted.workflows(cast(Any, world.temporal))) == set(names)
        assert engine.reads == 1
        info = WorkflowExecutionInfo(execution=WorkflowExecution(workflow_id="a7", run_id="run-of-a7"))
        await followers._found(cast(Any, world.temporal), info, None)
        assert engine.reads < 20
        assert followed(followers, "a7") is not None
    await followers.stop()
