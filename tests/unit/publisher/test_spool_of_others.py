"""Several publishers meet in one spool: none is told as its own what happens to another's, and none doubles or loses anything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.publisher.scripted import RIGHTLY, Answer, Frame, ScriptedGateway, error, spooling
from wakeline.errors import AttemptFencedError, EventTooLargeError
from wakeline.publisher import PublishDroppedError
from wakeline.publisher.drain import drain_source
from wakeline.publisher.frames import Identity
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.spool import Page, Spool


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


async def test_an_attempt_is_not_told_that_it_is_fenced_when_what_an_earlier_one_left_is(
    away: ScriptedGateway, file: Path
) -> None:
    Spool.at(file).add(Identity(session="s", publisher="p", attempt=1), 0, [b'{"topic":"t","data":"stale"}'])

    def fence(frame: Frame) -> Answer:
        if frame["type"] == "open" and frame["attempt"] == 1:
            return [error(frame["channel"], "attempt_fenced", attempt=2)]
        return RIGHTLY

    away.script = lambda frame: fence({"attempt": 1, **frame})
    await away.start()
    told: PublishDroppedError | None = None
    async with spooling(away, file, publisher="p", attempt=2) as session:
        async with asyncio.timeout(60):
            while told is None:
                try:
                    await session.topic("t").publish("live")
                    await session.flush()
                except PublishDroppedError as caught:
                    told = caught
    assert [event.data for event in told.events] == ["stale"]
    assert not isinstance(told, AttemptFencedError), "this attempt goes on"
    assert "attempt 1" in told.message
    assert set(away.events()) == {"live"}


async def test_after_a_refusal_the_spool_does_not_begin_to_count_anew(script: ScriptedGateway, file: Path) -> None:
    dropped: list[PublishDroppedError] = []
    async with spooling(script, file, on_dropped=dropped.append) as session:
        topic = session.topic("t")
        for n in range(3):
            await topic.publish(n)
        await session.flush()
        await script.stop()
        await topic.publish("refused")
        await session.flush()
        cut = False

        def refuse(frame: Frame) -> Answer:
            nonlocal cut
            if frame["type"] == "append" and frame["events"][0]["data"] == "refused":
                cut = True
                return [error(frame["channel"], "event_too_large")]
            if cut and frame["type"] == "open":
                return None  # it ends before it says where the attempt stands
            return RIGHTLY

        script.script = refuse
        await script.start()
        async with asyncio.timeout(60):
            while not dropped:
                await asyncio.sleep(0.01)
        await script.stop()
        async with asyncio.timeout(60):
            while session._sender is None or session._sender.away is None:
                await asyncio.sleep(0.01)
        await topic.publish("after")
        await session.flush()
        script.script = lambda _: RIGHTLY
        await script.start()
        async with asyncio.timeout(60):
            while Spool.at(file).waiting():
                await asyncio.sleep(0.01)
        await topic.publish("last")
        await session.flush()
        async with asyncio.timeout(60):
            while Spool.at(file).waiting():
                await asyncio.sleep(0.01)
    assert [event.data for error in dropped for event in error.events] == ["refused"]
    assert isinstance(dropped[0], EventTooLargeError)
    assert script.events() == [0, 1, 2, "after", "last"]


async def test_two_who_send_the_same_source_at_once_double_nothing(
    away: ScriptedGateway, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, its = Spool.at(file), Identity(session="s", publisher="p")
    spool.add(its, None, [b'{"topic":"t","data":%d}' % n for n in range(3)])
    await away.start()
    connection, page = shared_connection(away.url, None), spool.page
    seen = [page(its)] * 2  # what the second one has read before the first one sent it
    await drain_source(spool, connection, its, [])
    monkeypatch.setattr(spool, "page", lambda identity: seen.pop() if seen else page(identity))
    await drain_source(spool, connection, its, [])
    assert away.events() == [0, 1, 2]


async def test_who_is_overtaken_while_it_sends_does_not_take_that_for_a_loss(
    away: ScriptedGateway, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, its = Spool.at(file), Identity(session="s", publisher="p")
    bodies = [b'{"topic":"t","data":%d}' % n for n in range(1200)]
    spool.add(its, 0, bodies)
    await away.start()
    reads, page = 0, spool.page

    def overtaken(identity: Identity) -> Page | None:
        nonlocal reads
        reads += 1
        if reads == 3:  # one page was sent; then somebody else sends the next one
            away.log["s", "p", 1] += [{"data": n} for n in range(500, 1000)]
            spool.remove(its, 1000)
        return page(identity)

    monkeypatch.setattr(spool, "page", overtaken)
    await drain_source(spool, shared_connection(away.url, None), its, [])
    assert away.events() == list(range(1200))
    assert spool.refused() == 0


async def test_what_others_left_is_sent_also_if_who_had_begun_with_it_is_closed(
    away: ScriptedGateway, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spool.at(file).add(Identity(session="left", publisher="p"), 0, [b'{"topic":"t","data":"left"}'])
    held = False

    def hold(frame: Frame) -> Answer:
        nonlocal held
        if frame["type"] == "open" and frame["session"] == "left" and not held:
            held = True
            return []
        return RIGHTLY

    away.script = hold
    first, second = spooling(away, file, "first"), spooling(away, file, "second")
    await first.__aenter__()
    await away.start()
    async with asyncio.timeout(60):
        while not held:
            await asyncio.sleep(0.001)
        await second.__aenter__()
        while second._sender is None or second._sender._trip is not None:
            await asyncio.sleep(0.001)
        await first.aclose()
        while away.events("left") != ["left"]:
            await asyncio.sleep(0.001)
        await second.aclose()
