"""A run belongs to one life of its session: nothing of it begins a session again that was deleted meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.unit.following.followed import World, alone, followed, run, steps
from tests.unit.following.test_rests import parts_of
from wakeline.errors import EpochChangedError, SessionNotFoundError
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.following import Followers
from wakeline.gateway.following.finding.finder import Finder, Found
from wakeline.gateway.following.follower import Follower
from wakeline.gateway.following.following import Following, Subject
from wakeline.gateway.following.pool import FollowerPool
from wakeline.gateway.log import NewSession
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.sessions import Deletions, Run, Runs


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A gateway that hears of no commit, and so of no deletion."""
    world = World(monkeypatch)
    monkeypatch.setattr(world.engine.feed, "announce_all", lambda commits: None)
    return world


async def created(world: World, session: str = "a") -> str:
    state, _ = await world.engine.create_session(NewSession(session))
    return state.epoch


async def delete_elsewhere(world: World, session: str = "a") -> None:
    """Delete a session as another gateway does, which has locks of its own."""
    deletions = Deletions(world.engine, Runs(world.engine), Positions(world.engine, Presence()), Metrics())
    assert await deletions.delete(session)


def held(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the calls of a method: set when the first one has come; they go on when the second event is set."""
    came, may_go_on, original = asyncio.Event(), asyncio.Event(), getattr(owner, name)

    async def late(*args: Any, **how: Any) -> Any:
        came.set()
        await may_go_on.wait()
        return await original(*args, **how)

    monkeypatch.setattr(owner, name, late)
    return came, may_go_on


def shared(monkeypatch: pytest.MonkeyPatch) -> Ownership:
    """The ownership of a gateway that owns everything in a store that it shares."""
    ownership = alone()
    ownership.shared = True
    monkeypatch.setattr(ownership, "owns", lambda _: True)
    return ownership


async def learns_its_life(follower: Any) -> None:
    """Follow a run as a real follower does: into the life that there is if no other was given."""
    state = await follower.parts.engine.state(follower.session)
    follower.life = follower.life or state.epoch
    await asyncio.Event().wait()


async def until_followed_into(pool: FollowerPool, life: str) -> None:
    async with asyncio.timeout(60):
        while (follower := pool.roster.open.get(("a", "run-of-a"))) is None or follower.life != life:
            await asyncio.sleep(0.02)


async def test_a_run_that_waits_for_its_turn_does_not_begin_its_deleted_session_again(world: World) -> None:
    await created(world)
    await world.runs.add("a", run("a"))
    waits, comes = asyncio.Event(), asyncio.Event()

    async def earlier(session: str, run: Run) -> None:
        waits.set()
        await comes.wait()

    follower = Follower("a", run("a"), Following(**{**vars(parts_of(world, places=1)), "earlier": earlier}))
    following = asyncio.create_task(follower.follow())
    await asyncio.wait_for(waits.wait(), 60)
    await delete_elsewhere(world)
    comes.set()
    with pytest.raises(EpochChangedError):
        await following
    assert await world.engine.state("a") is None


@pytest.mark.parametrize("left", [run("a"), run("a", status="completed", owed=True)], ids=["open", "ended"])
@pytest.mark.parametrize("begun_again", [False, True])
async def test_a_record_that_a_deletion_has_left_is_not_followed_into_another_life(
    begun_again: bool, left: Run, world: World
) -> None:
    life = await created(world)
    await world.runs.add("a", left)
    await world.engine.delete_session("a")
    if begun_again:
        await created(world)
    with pytest.raises(EpochChangedError):
        await Follower("a", left, parts_of(world, places=1), life if begun_again else None).follow()
    state = await world.engine.state("a")
    assert (state is not None) == begun_again
    assert state is None or state.next_offset == 0


def by_publisher(followers: Followers, life: str) -> None:
    followers.published("a", "a", None, run=None, manages=True, life=life)


def by_parent(followers: Followers, life: str) -> None:
    followers._registrar.child(Subject("a", run("a"), followers._parts, life), "child", "run-of-child")


@pytest.mark.parametrize("named", [by_publisher, by_parent])
async def test_a_workflow_that_was_named_before_a_deletion_is_not_followed_after_it(
    named: Callable[[Followers, str], None], monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    find = Finder.find

    async def its_own(*args: Any, **how: Any) -> Found:
        return (await find(*args, **how))._replace(session="a")

    monkeypatch.setattr(Finder, "find", its_own)
    asked, may_answer = held(monkeypatch, Finder, "find")
    followers = world.followers()
    await followers.start()
    named(followers, await created(world))
    await asyncio.wait_for(asked.wait(), 60)
    await delete_elsewhere(world)
    may_answer.set()
    while followers._lookups.running:
        await asyncio.sleep(0)
    await followers.stop()
    assert await world.engine.state("a") is None
    assert await world.runs.of("a") == []


async def test_a_run_is_not_registered_into_a_session_that_is_deleted_meanwhile(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    await created(world)
    recording, may_record = held(monkeypatch, Runs, "add")
    monkeypatch.setattr("wakeline.gateway.following.pool.Follower", Follower)
    followers = world.followers()
    await followers.start()
    registering = asyncio.create_task(followers.register("a", None))
    await asyncio.wait_for(recording.wait(), 60)
    await delete_elsewhere(world)
    may_record.set()
    with pytest.raises(SessionNotFoundError):
        await registering
    await followers.stop()
    assert await world.engine.state("a") is None
    assert await world.runs.of("a") == []


async def test_a_life_that_begins_before_the_one_before_is_quite_gone_keeps_its_run(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    await created(world)
    followers = world.followers()
    await followers.start()
    await followers.register("a", None)
    delete_session = world.engine.delete_session

    async def register_after(*args: Any, **how: Any) -> bool:
        deleted = await delete_session(*args, **how)
        await followers.register("a", None)
        return deleted

    monkeypatch.setattr(world.engine, "delete_session", register_after)
    await delete_elsewhere(world)
    state = await world.engine.state("a")
    assert state is not None
    assert [known.run for known in await world.runs.of("a")] == ["run-of-a"]
    follower = followers._roster.open["a", "run-of-a"]
    assert cast(Any, follower).life == state.epoch, "its run is followed into the life that there is"
    await followers.stop()


async def test_a_device_of_the_next_life_has_its_workflow_looked_for(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    await created(world)
    followers = world.followers(shared(monkeypatch))
    await followers.start()
    await followers.register("a", None)
    await delete_elsewhere(world)
    life = await created(world)
    await followers.watch("a")
    await steps(100)
    assert followed(followers, "a") is not None
    assert cast(Any, followers._roster.open["a", "run-of-a"]).life == life
    await followers.stop()


async def test_a_reader_of_the_next_life_has_temporal_asked_again(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    asked = 0

    async def nothing(finder: Finder, session: str) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(Finder, "named_after", nothing)
    followers = world.followers()
    await followers.start()
    for lives in (1, 2):
        await created(world)
        for _ in range(2):
            await followers.watch("a")
        assert asked == lives
        await delete_elsewhere(world)
    await followers.stop()


@pytest.mark.parametrize("leases_change", [False, True])
async def test_a_run_of_the_next_life_is_followed_by_an_owner_that_has_not_heard_of_the_deletion(
    leases_change: bool, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    world.follow = learns_its_life
    before = await created(world)
    await world.runs.add("a", run("a"))
    pool = world.pool(shared(monkeypatch))
    await pool.start()
    await until_followed_into(pool, before)
    await delete_elsewhere(world)
    life = await created(world)
    await world.runs.add("a", run("a"))
    if leases_change:
        pool._resuming.all()
    pool._resuming.soon("a")  # as the hint of the gateway does that has registered the run again
    await until_followed_into(pool, life)
    await pool.stop()


@pytest.mark.parametrize("ended", [False, True])
async def test_a_run_is_followed_into_the_next_life_once_its_follower_finds_the_deletion(
    ended: bool, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    follows, appends = asyncio.Event(), asyncio.Event()

    async def follow(follower: Any) -> None:
        if follows.is_set():
            await learns_its_life(follower)
        follows.set()
        await appends.wait()
        raise EpochChangedError("expected the session in the life before")

    world.follow = follow
    await created(world)
    await world.runs.add("a", run("a", status="completed", owed=True) if ended else run("a"))
    pool = world.pool(shared(monkeypatch))
    await pool.start()
    await asyncio.wait_for(follows.wait(), 60)
    await delete_elsewhere(world)
    life = await created(world)
    await world.runs.add("a", run("a"))
    appends.set()
    await until_followed_into(pool, life)
    await pool.stop()
