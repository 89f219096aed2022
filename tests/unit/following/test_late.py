"""What an ended run still owes: nothing of it is added after a later run has the word, and that one waits for nobody else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from temporalio.api.common.v1 import Payload

from tests.unit.following.followed import World, run, steps
from wakeline.gateway.following import late as lateness
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import Item, Stretch
from wakeline.gateway.following.draining import Drainer
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.late import Late
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.following.watching.endings import Ending
from wakeline.gateway.log import Publication
from wakeline.gateway.sessions import Intents, Unread

OWING = run("a", status="terminated", owed=True)


def parts_of(world: World, *, places: int) -> Following:
    async def nothing(*_: Any) -> None:
        pass

    return Following(
        connection=cast(Any, world.temporal),
        accept=world.accept,
        runs=world.runs,
        intents=Intents(world.engine),
        settings=world.settings,
        settled=lambda session: None,
        watched=lambda session: False,
        child=nothing,
        earlier=nothing,
        looks=asyncio.Semaphore(1),
        reads=asyncio.Semaphore(1),
        late_reads=asyncio.Semaphore(places),
    )


async def late_of(world: World, *, places: int) -> Late:
    await world.runs.put("a", OWING)
    return Late("a", OWING, parts_of(world, places=places))


async def test_nothing_is_read_any_more_when_it_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    late = await late_of(World(monkeypatch, drain_grace=0.0), places=1)
    tries = 0

    async def read() -> None:
        nonlocal tries
        tries += 1

    monkeypatch.setattr(late, "_read", read)
    chance = asyncio.create_task(late.last_chance())
    await steps(1)
    waiting = asyncio.create_task(late.wait())
    await steps(1)
    assert not chance.done()  # it is about to write down that it has been given up
    await steps()
    assert chance.done()
    assert waiting.done()
    assert tries == 0


async def test_a_last_chance_does_not_wait_for_others_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    late = await late_of(World(monkeypatch, drain_grace=3600.0), places=0)

    async def read(*_: Any, **__: Any) -> bool:
        return False

    monkeypatch.setattr(late._copy, "read", read)
    waiting = asyncio.create_task(late.wait())
    await steps()
    chance = asyncio.create_task(late.last_chance())
    await steps(100)
    assert chance.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


class Stream:
    """Reads the stream of a run: the next one was given that of the first, and has said more."""

    by_update = False

    def __init__(self, connection: Any, workflow_id: str, run_id: str) -> None:
        self._said = 5 if run_id == "next" else 3

    async def read(self, offset: int, *, closed: bool = False) -> Stretch:
        items = [
            Item(at, "said", Payload(metadata={"encoding": b"json/plain"}, data=str(at).encode()).SerializeToString())
            for at in range(offset, self._said)
        ]
        return Stretch(items, self._said, more=False)


@pytest.mark.parametrize("read_before", [True, False])
async def test_what_a_run_handed_on_is_told_once_although_nobody_could_read_it_there(
    read_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lateness, "StreamReader", Stream)
    world = World(monkeypatch)
    parts = parts_of(world, places=1)
    first = run("a")
    copy = StreamCopy(first, Teller("a", first.run, world.accept), world.accept, world.runs)
    ending = Ending(None, datetime.now(UTC), "next", "continue_as_new", carries=True)
    await Drainer(parts, copy, lambda run_id: asyncio.sleep(0))._leave_unread(ending)
    await copy.change(run_id="next", given_whole=False)
    if read_before:
        await copy.read(cast(Any, Stream(None, "a", "next")), closed=True)
    await copy.change(status="terminated", owed=True)
    await Late("a", copy.run, parts).wait()
    page = await world.engine.read("a", 0, before=100)
    told = [msgspec.json.decode(event.json()) for event in page.events]
    assert [event["data"] for event in told if event["topic"] == "said"] == [0, 1, 2, 3, 4]
    assert [event["topic"] for event in told if event["topic"] != "said"] == ["$run.drained"]


async def test_what_a_reset_has_undone_is_not_owed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "StreamReader", Stream)
    monkeypatch.setattr(lateness, "_SOONEST", 3600.0)
    world = World(monkeypatch)
    first = run("a")
    copy = StreamCopy(first, Teller("a", first.run, world.accept), world.accept, world.runs)
    await copy.read(cast(Any, Stream(None, "a", first.run_id)), closed=True)
    await world.accept.open_attempt("a", Publication(copy.publisher, 2, supersedes=True, run=first.run))
    unread = Unread(first.run_id, first.run_id, 1)
    owing = run("a", status="terminated", owed=True, unread=(unread,))
    owing = msgspec.structs.replace(owing, run_id="next", stream="next")
    await world.runs.put("a", owing)
    waiting = asyncio.create_task(Late("a", owing, parts_of(world, places=1)).wait())
    await steps(200)
    ended = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert ended
    (after,) = await world.runs.of("a")
    assert (after.owed, after.unread) == (False, ())


async def test_what_could_be_read_after_all_is_not_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway was killed between noting that a run is to be read later and telling what it goes on as."""
    world = World(monkeypatch)
    first = run("a")
    earlier, own = Unread("earlier", "earlier", 1), Unread(first.run_id, first.run_id, 1)
    copy = StreamCopy(
        msgspec.structs.replace(first, unread=(earlier, own)),
        Teller("a", first.run, world.accept),
        world.accept,
        world.runs,
    )
    drainer = Drainer(parts_of(world, places=1), copy, lambda run_id: asyncio.sleep(0))
    ending = Ending(None, datetime.now(UTC), "next", "retry", carries=False)
    assert await drainer.drain(cast(Any, Stream(None, "a", first.run_id)), ending)
    assert copy.run.unread == (earlier,)
