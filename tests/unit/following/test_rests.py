"""The rest of an ended run, over the memory engine: it is added once, or abandoned before a later run begins."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest
from temporalio.api.common.v1 import Payload

from tests.unit.following.followed import World, run, steps
from wakeline.errors import AttemptFencedError, StorageFailedError
from wakeline.events import compose, timestamp
from wakeline.gateway.following import follower as runner
from wakeline.gateway.following import rests as resting
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import Item, Polled
from wakeline.gateway.following.follower import Follower
from wakeline.gateway.following.following import Following, Limits
from wakeline.gateway.following.life import resting as rules
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.life.observations import Seen
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.log import NewSession, Publication
from wakeline.gateway.sessions import Run, Unread

OWING = run("a", status="terminated", owed=True)


def parts_of(world: World, *, places: int) -> Following:
    return world.parts(limits=Limits(late_reads=places))


class Stream:
    """Reads the stream of a run. The next one received that of the first, and has published more."""

    by_update = False
    there = True
    reads = 0

    def __init__(self, connection: Any, workflow_id: str, run_id: str) -> None:
        self._said = 5 if run_id == "next" else 3

    async def read(self, offset: int, *, closed: bool = False) -> Polled:
        Stream.reads += 1
        if not Stream.there:
            return Polled(Answer.NOBODY)
        items = [
            Item(at, "said", Payload(metadata={"encoding": b"json/plain"}, data=str(at).encode()).SerializeToString())
            for at in range(offset, self._said)
        ]
        return Polled(Answer.READ, items, self._said, more=False)


@pytest.fixture(autouse=True)
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "StreamReader", Stream)
    monkeypatch.setattr(Stream, "there", True)
    monkeypatch.setattr(Stream, "reads", 0)


async def follower_of(world: World, owing: Run = OWING, *, places: int = 1) -> Follower:
    await world.engine.create_session(NewSession("a"))
    await world.runs.put("a", owing)
    return Follower("a", owing, parts_of(world, places=places))


async def events_of(world: World) -> list[dict[str, Any]]:
    page = await world.engine.read("a", 0, before=100)
    return [msgspec.json.decode(event.json()) for event in page.events]


async def test_a_rest_is_added_and_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    follower = await follower_of(world)
    await follower.follow()
    assert [event["topic"] for event in await events_of(world)] == ["said"] * 3 + ["$run.drained"]
    assert not follower.run.owed


async def test_a_rest_that_cannot_be_added_at_first_is_added_later(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([RuntimeError("nobody thought of this")])
    append = StreamCopy._append

    async def fails(copy: StreamCopy, stretch: Any) -> bool:
        for failure in failures:
            raise failure
        return await append(copy, stretch)

    monkeypatch.setattr(StreamCopy, "_append", fails)
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(rules, "_SOONEST", 0.0)
    world = World(monkeypatch)
    await (await follower_of(world)).follow()
    assert next(failures, None) is None
    assert [event["topic"] for event in await events_of(world)] == ["said"] * 3 + ["$run.drained"]


async def test_a_rest_that_a_later_run_does_not_wait_for_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, drain_grace=0.0)
    follower = await follower_of(world)
    follower.hurry()
    await follower.follow()
    assert (Stream.reads, follower.run.owed) == (0, False)
    assert await events_of(world) == []


async def test_a_gateway_that_had_stopped_cannot_add_a_rest_that_was_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, drain_grace=0.0)
    unread = Unread("earlier", "earlier", 1)
    owing = msgspec.structs.replace(OWING, unread=(unread,))
    follower = await follower_of(world, owing)
    stopped = [
        StreamCopy(run, Teller("a", OWING.run, world.accept), world.accept, world.runs, recorded=False)
        for run in (owing, msgspec.structs.replace(owing, run_id="earlier", stream="earlier"))
    ]
    for copy in stopped:
        await copy.begin()
    follower.hurry()
    await follower.follow()
    with pytest.raises(AttemptFencedError):
        await world.accept.append(
            "a", (compose("$run.drained", b"{}", time=timestamp()),), Publication("drained:run-of-a")
        )
    for copy in stopped:
        with pytest.raises(AttemptFencedError):
            await copy.read(cast(Any, Stream(None, "a", copy.run.run_id)), closed=True)
    assert await events_of(world) == []


async def test_a_last_chance_does_not_wait_for_the_rests_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, drain_grace=3600.0)
    follower = await follower_of(world, places=0)
    following = asyncio.create_task(follower.follow())
    await steps()
    assert Stream.reads == 0
    follower.hurry()
    await steps(100)
    assert following.done()
    assert [event["topic"] for event in await events_of(world)] == ["said"] * 3 + ["$run.drained"]


async def test_a_last_chance_does_not_wait_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "there", False)
    world = World(monkeypatch, drain_grace=3600.0)
    follower = await follower_of(world)
    following = asyncio.create_task(follower.follow())
    await steps()
    assert (Stream.reads, following.done()) == (1, False)
    monkeypatch.setattr(Stream, "there", True)
    follower.hurry()
    await steps(100)
    assert following.done()
    assert [event["topic"] for event in await events_of(world)] == ["said"] * 3 + ["$run.drained"]


@pytest.mark.parametrize("begun_again", [False, True])
async def test_a_rest_is_not_added_to_another_life_of_its_session(
    begun_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stream, "there", False)
    world = World(monkeypatch, drain_grace=3600.0)
    follower = await follower_of(world)
    following = asyncio.create_task(follower.follow())
    await steps()
    await world.engine.delete_session("a")
    if begun_again:
        await world.engine.create_session(NewSession("a"))
    monkeypatch.setattr(Stream, "there", True)
    follower.hurry()
    await asyncio.wait_for(following, 60)
    state = await world.engine.state("a")
    assert (state is not None) == begun_again
    assert state is None or state.next_offset == 0


async def test_a_place_among_the_rests_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.engine.create_session(NewSession("a"))
    await world.runs.put("a", OWING)
    parts = parts_of(world, places=1)
    for _ in range(3):
        follower = Follower("a", OWING, parts)
        following = asyncio.create_task(follower.follow())
        await steps(2)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await steps()
    assert not parts.limits.late_reads.locked()


@pytest.mark.parametrize("read_before", [True, False])
async def test_a_stream_that_was_received_is_added_once_although_nobody_could_read_it_there(
    read_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch)
    await world.engine.create_session(NewSession("a"))
    first = run("a")
    copy = StreamCopy(first, Teller("a", first.run, world.accept), world.accept, world.runs)
    await copy.change(run_id="next", given_whole=False)
    if read_before:
        await copy.read(cast(Any, Stream(None, "a", "next")), closed=True)
    await copy.change(status="terminated", owed=True)
    await Follower("a", copy.run, parts_of(world, places=1)).follow()
    events = await events_of(world)
    assert [event["data"] for event in events if event["topic"] == "said"] == [0, 1, 2, 3, 4]
    assert [event["topic"] for event in events if event["topic"] != "said"] == ["$run.drained"]


async def test_the_output_that_a_reset_has_undone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    first = run("a")
    copy = StreamCopy(first, Teller("a", first.run, world.accept), world.accept, world.runs)
    await copy.read(cast(Any, Stream(None, "a", first.run_id)), closed=True)
    await world.accept.open_attempt("a", Publication(copy.publisher, 2, supersedes=True, run=first.run))
    unread = Unread(first.run_id, first.run_id, 1)
    owing = msgspec.structs.replace(OWING, unread=(unread,), run_id="next", stream="next")
    follower = await follower_of(world, owing)
    following = asyncio.create_task(follower.follow())
    await steps(200)
    ended = following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert ended
    (after,) = await world.runs.of("a")
    assert (after.owed, after.unread) == (False, ())


async def test_temporal_is_not_asked_for_a_run_whose_rest_the_log_cannot_take_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures, described = [StorageFailedError("the disk is full") for _ in range(5)], list[str]()
    append = StreamCopy._append

    async def fails(copy: StreamCopy, stretch: Any) -> bool:
        if failures:
            raise failures.pop()
        return await append(copy, stretch)

    async def describe_run(_: Any, effect: Any) -> Seen:
        described.append(effect.run_id)
        return Seen()

    monkeypatch.setattr(StreamCopy, "_append", fails)
    monkeypatch.setattr(resting.Rests, "describe_run", describe_run)
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(rules, "_SOONEST", 0.0)
    world = World(monkeypatch)
    await asyncio.wait_for((await follower_of(world)).follow(), 60)
    assert [event["topic"] for event in await events_of(world)] == ["said"] * 3 + ["$run.drained"]
    assert (failures, described) == ([], [])
