"""The followers that there are: one for each open run, whatever goes wrong, and watching closely where a device is."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from structlog.testing import CapturingLogger
from temporalio.service import RPCError, RPCStatusCode

from tests.unit.following.followed import World, followed, run, steps
from wakeline.errors import AttemptFencedError, StorageFailedError
from wakeline.events import compose, timestamp
from wakeline.gateway.delivery import Hub
from wakeline.gateway.following import audience, turns
from wakeline.gateway.following import pool as pooling
from wakeline.gateway.following.watching import attention
from wakeline.gateway.log import NewSession, Publication
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.sessions import Run, Runs


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(attention, "_ASSIGN_SECONDS", 0.0)


def closely(pool: pooling.FollowerPool) -> set[str]:
    return {follower.session for follower in pool.roster.open.values() if follower.attention.closely}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_run_is_followed_on_when_the_log_cannot_be_read_for_a_while(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, follows = World(monkeypatch), 0
    await world.runs.put("a", run("a"))

    async def follow(follower: Any) -> None:
        nonlocal follows
        follows += 1
        if follows == 1:
            world.engine.fails += [StorageFailedError("the disk is away") for _ in range(times)]
            raise StorageFailedError("the disk is away")
        await asyncio.Event().wait()

    world.follow = follow
    pool = world.pool()
    await pool.start()
    await steps(100)
    assert follows == 2
    assert followed(pool.roster, "a") is not None
    await pool.stop()


async def test_a_run_that_cannot_be_followed_is_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    world, follows = World(monkeypatch), 0
    await world.runs.put("a", run("a"))

    async def follow(follower: Any) -> None:
        nonlocal follows
        follows += 1
        if follows < 1100:
            raise ValueError("nobody thought of this")
        await asyncio.Event().wait()

    world.follow = follow
    monkeypatch.setattr(pooling, "_log", CapturingLogger())
    pool = world.pool()
    await pool.start()
    await steps(20_000)
    assert follows == 1100
    assert followed(pool.roster, "a") is not None
    await pool.stop()


async def test_gateways_that_fence_each_other_pause_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    world, follows = World(monkeypatch), 0
    await world.runs.put("a", run("a"))

    async def follow(follower: Any) -> None:
        nonlocal follows
        follows += 1
        raise AttemptFencedError("another gateway has come further", attempt=2)

    world.follow = follow
    monkeypatch.setattr(pooling, "RETRY_SECONDS", 0.05)
    pool, began = world.pool(), time.monotonic()
    await pool.start()
    async with asyncio.timeout(60):
        while follows < 4:
            await asyncio.sleep(0.02)
    assert follows <= 1 + (time.monotonic() - began) / 0.03
    assert followed(pool.roster, "a") is not None
    await pool.stop()


async def test_a_run_that_is_followed_anew_is_watched_as_closely_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    world, fails = World(monkeypatch, close_watches=1), asyncio.Event()
    await world.runs.put("a", run("a"))

    async def follow(follower: Any) -> None:
        if not fails.is_set():
            await fails.wait()
            raise ValueError("nobody thought of this")
        await asyncio.Event().wait()

    world.follow = follow
    pool = world.pool()
    await pool.start()
    await steps()
    assert closely(pool) == {"a"}
    fails.set()
    await steps()
    assert closely(pool) == {"a"}
    await pool.stop()


@pytest.mark.parametrize("after", range(6))
async def test_where_a_device_comes_a_run_is_watched_closely(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, close_watches=1)
    for session in "ab":
        await world.engine.create_session(NewSession(session))
        await world.runs.put(session, run(session))
    followers = world.followers()
    pool = followers._pool
    await followers.start()
    await steps()
    (first,) = closely(pool)
    (other,) = {"a", "b"} - {first}
    await followers.watch(other)
    await steps(after)
    async with world.hub.attach(other):
        await steps()
        assert closely(pool) == {other}
    async with world.hub.attach(first):
        await steps()
        assert closely(pool) == {first}
    await followers.stop()


@pytest.mark.parametrize("after", range(4))
async def test_nothing_is_left_running_where_a_run_ends_while_everything_stops(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, ends = World(monkeypatch), asyncio.Event()
    await world.runs.put("a", run("a"))

    async def follow(follower: Any) -> None:
        if not follower.run.open:
            await asyncio.Event().wait()  # its rest is never read
        await ends.wait()
        follower.run = run("a", status="completed", owed=True)

    world.follow = follow
    before = asyncio.all_tasks()
    pool = world.pool()
    await pool.start()
    await steps()
    ends.set()
    await steps(after)
    await pool.stop()
    await steps()
    assert not asyncio.all_tasks() - before


@pytest.mark.parametrize("first", ["activity", "workflow"])
async def test_standalone_activities_are_not_among_the_runs_watched_closely(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch, close_watches=1)
    runs = {"activity": run("activity", activity=True), "workflow": run("workflow")}
    followers = world.followers()
    pool = followers._pool
    await followers.start()
    for session in (first, *(runs.keys() - {first})):
        state, _ = await world.engine.create_session(NewSession(session))
        await world.runs.put(session, runs[session])
        await pool.take(session, runs[session], state.epoch)
    async with world.hub.attach("activity"):
        await steps()
        assert closely(pool) == {"workflow"}
    (sweep,) = followers._sweeps.values()
    assert (len(pool.roster.open), sweep._swept.endings()) == (2, False)
    await followers.stop()
    assert (len(pool.roster.open), pool.roster.workflows()) == (0, 0)


async def test_the_rest_of_an_ended_run_is_read_by_one_gateway_after_its_lease_has_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, readers = World(monkeypatch), Counter[str]()
    names = [f"a{number}" for number in range(20)]
    for name in names:
        await world.runs.put(name, run(name, status="completed", owed=True))

    async def follow(follower: Any) -> None:
        readers[follower.session] += 1
        try:
            await asyncio.Event().wait()  # no worker answers
        finally:
            readers[follower.session] -= 1

    world.follow = follow
    first, second = (Ownership(world.engine, 2, shared=True) for _ in range(2))
    pools = [world.pool(first), world.pool(second)]
    await first.start()
    await pools[0].start()
    await until(lambda: all(readers[name] == 1 for name in names))
    await second.start()
    await pools[1].start()
    await until(lambda: 0 < sum(map(second.owns, names)) < len(names))
    await until(lambda: all(first.owns(name) != second.owns(name) for name in names))
    await until(lambda: all(readers[name] == 1 for name in names))
    for gateway, pool in zip((first, second), pools, strict=True):
        await pool.stop()
        await gateway.stop()


async def test_a_run_is_resumed_after_an_error_that_nobody_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    pool = world.pool()
    await pool.start()
    await world.engine.create_session(NewSession("a"))
    await world.runs.put("a", run("a"))
    monkeypatch.setattr(world.runs, "of", _once(ValueError("unexpected"), world.runs.of))
    monkeypatch.setattr(world.runs, "unfinished", _unasked)  # the runs of the other sessions are not walked
    pool._resuming.soon("a")  # as another gateway's hint does
    await until(lambda: followed(pool.roster, "a") is not None)
    await pool.stop()


async def _unasked(*_: Any) -> Any:
    raise AssertionError("expected this not to be asked")


@pytest.mark.parametrize(
    ("here", "serves", "reads"),
    [
        pytest.param(run("a"), True, 1, id="a workflow's run"),
        pytest.param(run("a", activity=True), False, 1, id="a standalone activity alone"),
        pytest.param(run("a", status="completed", owed=True), False, 0, id="the rest of an ended run"),
    ],
)
async def test_a_session_is_served_where_a_workflow_s_run_of_it_is_followed(
    here: Run, serves: bool, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, asked = World(monkeypatch), list[str]()
    ownership = Ownership(world.engine, 5, shared=True)
    monkeypatch.setattr(ownership, "owns", lambda _: True)
    await world.engine.create_session(NewSession("s"))
    await world.runs.put("s", here)
    pool = world.pool(ownership)
    await pool.start()
    await until(lambda: bool(pool.roster.of_session("s")))
    state = world.engine.state

    async def counted(session: str, **how: Any) -> Any:
        asked.append(session)
        return await state(session, **how)

    monkeypatch.setattr(world.engine, "state", counted)
    assert (await pool.serves("s"), asked.count("s")) == (serves, reads)
    await world.engine.delete_session("s")
    assert not await pool.serves("s")
    await pool.stop()


def _once(error: Exception, work: Callable[[str], Awaitable[Any]]) -> Callable[[str], Awaitable[Any]]:
    """Return a function that fails at its first call."""
    errors = [error]

    async def once(session: str) -> Any:
        if errors:
            raise errors.pop()
        return await work(session)

    return once


async def test_a_failure_of_temporal_is_logged_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    world, log = World(monkeypatch), CapturingLogger()
    await world.runs.put("a", run("a"))

    async def follow(follower: Any) -> None:
        if not log.calls:
            raise RPCError("the server is restarted", RPCStatusCode.UNAVAILABLE, b"")
        await asyncio.Event().wait()

    world.follow = follow
    monkeypatch.setattr(pooling, "_log", log)
    pool = world.pool()
    await pool.start()
    await until(lambda: bool(log.calls))
    (call,) = log.calls
    assert call.method_name == "warning"
    assert call.kwargs == {"error": "the server is restarted", "session": "a", "run": "run-of-a"}
    await pool.stop()


async def test_a_device_at_another_gateway_counts_for_the_follower_of_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audience, "_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(audience, "_REPORT_SECONDS", 0.2)
    monkeypatch.setattr(audience, "_BELIEVED_SECONDS", 2.0)
    other, world = World(monkeypatch), World(monkeypatch, close_watches=1)
    other.engine, other.runs, other.hub = world.engine, Runs(world.engine), Hub(world.engine, world.runs.settled)
    for session in "ab":
        await world.engine.create_session(NewSession(session))
        await world.runs.put(session, run(session))
    owner, elsewhere = (Ownership(world.engine, 5, shared=True) for _ in range(2))
    pool, device_s = world.pool(owner), other.pool(elsewhere)
    await owner.start()
    await elsewhere.wakeups.start()  # it owns nothing
    await pool.start()
    await device_s.start()
    await until(lambda: len(closely(pool)) == 1)
    (first,) = closely(pool)
    (second,) = {"a", "b"} - {first}
    follower: Any = pool.roster.open[second, f"run-of-{second}"]
    async with other.hub.attach(second):
        await until(lambda: closely(pool) == {second})
        await until(lambda: follower.parts.audience.watches(second))
    await until(lambda: not follower.parts.audience.watches(second))
    for stopping in (pool, device_s, owner, elsewhere):
        await stopping.stop()


async def test_a_run_waits_for_an_earlier_one_that_is_about_to_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease has moved: the later run was registered here before the records were read for the earlier one."""
    monkeypatch.setattr(turns, "RETRY_SECONDS", 0.01)
    world, order = World(monkeypatch), list[str]()
    earlier = await world.runs.add("s", run("w"))
    later = msgspec.structs.replace(earlier, run="later", run_id="later", started_at="2026-11-21T06:00:00.000Z")
    await world.runs.add("s", later)

    async def follow(follower: Any) -> None:
        if follower.run.run == "later":
            await follower.parts.earlier("s", follower.run)
        order.append(follower.run.run)
        await world.runs.put("s", msgspec.structs.replace(follower.run, status="completed"))
        follower.run = msgspec.structs.replace(follower.run, status="completed")

    world.follow = follow
    pool = world.pool()
    pool._start("s", later, None)
    await asyncio.sleep(0.1)
    assert order == []
    pool._start("s", earlier, None)
    await until(lambda: len(order) == 2)
    assert order == [earlier.run, "later"]
    await pool.stop()


@pytest.mark.parametrize("reads", [True, False])
async def test_a_run_waits_for_the_rest_of_another_workflow_s_run_at_another_gateway(
    reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(turns, "_LATE_SECONDS", 60 if reads else 0.5)
    world, order = World(monkeypatch, drain_grace=0), list[str]()
    await world.engine.create_session(NewSession("s"))
    await world.runs.put("s", run("a", status="terminated", owed=True))
    await world.runs.put("s", run("b"))

    async def follow(follower: Any) -> None:
        if follower.run.open:
            await follower.parts.earlier("s", follower.run)
            order.append("the later run begins")
        else:
            await (follower.hurried.wait() if reads else asyncio.Event().wait())
            order.append("the rest is added")  # to the log, before the record says so
            await world.runs.put("s", run("a", status="terminated", owed=False))
        await asyncio.Event().wait()

    world.follow = follow
    first, second = (Ownership(world.engine, 5, shared=True) for _ in range(2))
    monkeypatch.setattr(first, "owns", lambda name: name == "a")
    monkeypatch.setattr(first.wakeups, "_owns", first.owns)
    monkeypatch.setattr(second, "owns", lambda name: name == "b")
    monkeypatch.setattr(second.wakeups, "_owns", second.owns)
    pools = [world.pool(first), world.pool(second)]
    for gateway, pool in zip((first, second), pools, strict=True):
        await gateway.wakeups.start()
        await pool.start()
    await until(lambda: "the later run begins" in order)
    assert order == ["the rest is added", "the later run begins"][not reads :]
    if not reads:  # the other gateway cannot add it any more
        drained = compose("$run.drained", b"{}", time=timestamp())
        with pytest.raises(AttemptFencedError):
            await world.accept.append("s", (drained,), Publication("drained:run-of-a"), epoch=None)
    for gateway, pool in zip((first, second), pools, strict=True):
        await pool.stop()
        await gateway.wakeups.stop()
