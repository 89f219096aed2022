"""The output that a reset has undone, over the memory engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes

from tests.unit.following.followed import World, run
from wakeline.errors import AttemptFencedError
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.items import Item, Stretch
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.following.watching import resets
from wakeline.gateway.following.watching.resets import Reset, supersede_undone
from wakeline.gateway.sessions import Run, Unread
from wakeline.temporal.chains import Start

FIRST = run("a")


class Stream:
    """Reads a stream of so many items."""

    by_update = False

    def __init__(self, said: int) -> None:
        self._said = said

    async def read(self, offset: int, *, closed: bool = False) -> Stretch:
        data = Payload(metadata={"encoding": b"json/plain"}, data=b"1").SerializeToString()
        return Stretch([Item(at, "said", data) for at in range(offset, self._said)], self._said, more=False)


def copy_of(world: World, run: Run, *, recorded: bool = True) -> StreamCopy:
    return StreamCopy(run, Teller("a", FIRST.run, world.accept), world.accept, world.runs, recorded=recorded)


async def read(copy: StreamCopy, said: int) -> None:
    await copy.begin()
    await copy.read(cast(Any, Stream(said)))


async def superseded(world: World) -> list[Any]:
    page = await world.engine.read("a", 0, before=100)
    events = [msgspec.json.decode(event.json()) for event in page.events]
    return [event["data"]["offsets"] for event in events if event["topic"] == "$attempt.superseded"]


def begun(run_id: str, *, original: str = "", previous: str = "", received: bool = False) -> Start:
    said = WorkflowExecutionStartedEventAttributes(
        original_execution_run_id=original or run_id,
        continued_execution_run_id=previous,
        input=Payloads(payloads=[Payload(data=b'{"base_offset": 0}')] if received else []),
    )
    return Start(run_id, datetime(2026, 11, 30, tzinfo=UTC), said)


@pytest.fixture(autouse=True)
def no_activities(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any) -> list[Any]:
        return []

    monkeypatch.setattr(resets, "_activities", none)


async def test_output_is_superseded_also_if_the_run_after_a_reset_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 2)
    after = msgspec.structs.replace(FIRST, run_id="next", stream_attempt=2)
    await read(copy_of(world, after), 0)
    await read(copy_of(world, after), 0)
    assert await superseded(world) == [[[0, 1]]]


async def test_a_stream_that_a_reset_has_undone_before_it_was_read_is_not_read_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    unread = Unread(FIRST.run_id, FIRST.run_id, 1)
    now = msgspec.structs.replace(FIRST, run_id="second", stream="second", unread=(unread,))
    await read(copy_of(world, now), 1)
    way = [begun("second"), begun(FIRST.run_id)]
    await supersede_undone(cast(Any, None), world.accept, "a", now, Reset("third", FIRST.run_id, 4, way), epoch=None)
    with pytest.raises(AttemptFencedError):
        await read(copy_of(world, FIRST, recorded=False), 3)


async def test_a_reset_does_not_undo_the_output_of_a_run_that_had_ended_before_its_own_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 3)
    again = msgspec.structs.replace(FIRST, run="again", run_id="again", stream="again", chain=FIRST.run)
    way = [begun("again", original=FIRST.run_id)]

    async def its_first(*_: Any) -> Start:
        return way[0]

    monkeypatch.setattr(resets, "_begun", its_first)
    await supersede_undone(cast(Any, None), world.accept, "a", again, Reset("third", "again", 4, way), epoch=None)
    assert await superseded(world) == []


async def test_no_later_reset_undoes_the_output_of_an_earlier_run_of_the_ended_chain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 3)  # it continued as "second", without its stream; that one ended, and was reset
    runs = {
        FIRST.run_id: begun(FIRST.run_id),
        "second": begun("second", previous=FIRST.run_id),
        "again": begun("again", original="second", previous=FIRST.run_id),
        "back": begun("back", original=FIRST.run_id),
    }

    async def of(client: Any, run: Run, run_id: str) -> Start | None:
        return runs.get(run_id)

    monkeypatch.setattr(resets, "_begun", of)
    again = msgspec.structs.replace(FIRST, run="again", run_id="again", stream="again", chain=FIRST.run)
    for now, then, way in (("again", "back", ["again", FIRST.run_id]), ("back", "third", ["back"])):
        reset = Reset(then, FIRST.run_id, 4, [runs[each] for each in way])
        present = msgspec.structs.replace(again, run_id=now)
        await supersede_undone(cast(Any, None), world.accept, "a", present, reset, epoch=None)
    assert await superseded(world) == []


async def test_a_stream_that_the_run_that_was_reset_had_received_is_superseded_under_its_first_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    await read(copy_of(world, FIRST), 3)
    third = msgspec.structs.replace(FIRST, run_id="third", stream="third")
    runs = {FIRST.run_id: begun(FIRST.run_id), "second": begun("second", previous=FIRST.run_id, received=True)}

    async def of(client: Any, run: Run, run_id: str) -> Start | None:
        return runs.get(run_id)

    monkeypatch.setattr(resets, "_begun", of)
    way = [begun("third", previous="second"), runs["second"]]
    await supersede_undone(cast(Any, None), world.accept, "a", third, Reset("again", "second", 4, way), epoch=None)
    assert await superseded(world) == [[[0, 2]]]


async def test_a_stream_that_a_reset_has_begun_again_is_superseded_under_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    # The ended run was reset as FIRST, and that as "again"; this one continued as "second", without its stream.
    await read(copy_of(world, FIRST), 2)
    second = msgspec.structs.replace(
        FIRST, run_id="second", stream="second", chain="ended", reset_streams={"again": FIRST.run_id}
    )
    first = begun(FIRST.run_id, original="ended")

    async def of(*_: Any) -> Start:
        return first

    monkeypatch.setattr(resets, "_begun", of)
    way = [begun("second", previous="again"), begun("again", original="ended")]
    await supersede_undone(cast(Any, None), world.accept, "a", second, Reset("third", "again", 4, way), epoch=None)
    assert await superseded(world) == [[[0, 1]]]
