"""All devices of a session at once: the log is read, and events are encoded, once for all who want the same."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from tests.support import publish
from wakeline.errors import SessionNotFoundError, StorageFailedError
from wakeline.events import Event
from wakeline.gateway.access import ANYONE, GRANT
from wakeline.gateway.delivery import Hub, Topics
from wakeline.gateway.delivery.pages import Pages
from wakeline.gateway.log import Page
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Runs
from wakeline.gateway.transports import longpoll


class CountingEngine(MemoryEngine):
    """Counts reads, lets others run meanwhile, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.failing = False

    async def read(
        self,
        session: str,
        offset: int,
        *,
        before: int,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        self.reads += 1
        await asyncio.sleep(0.01)
        if self.failing:
            raise StorageFailedError("the disk")
        return await super().read(session, offset, before=before, limit=limit, topics=topics, epoch=epoch)


def encode(events: list[Event]) -> bytes:
    return b"".join(b"%d " % event.offset for event in events)


async def scene(count: int) -> tuple[CountingEngine, Pages]:
    engine = CountingEngine()
    await publish(engine, "s", *range(count))
    state = await engine.state("s")
    assert state is not None
    return engine, Pages(engine, "s", state.epoch, state.created)


async def catch_up(pages: Pages, offset: int, tail: int, topics: Topics | None = None) -> bytes:
    got = b""
    while offset < tail:
        page = await pages.encoded(offset, before=tail, topics=topics, encode=encode, lane=("l", topics))
        got += page.chunk
        offset = page.next_offset
    return got


async def test_a_thousand_devices_read_the_log_once() -> None:
    engine, pages = await scene(1000)
    got = await asyncio.gather(*[catch_up(pages, 0, 1000) for _ in range(1000)])
    assert set(got) == {b"".join(b"%d " % n for n in range(1000))}
    assert engine.reads == 2
    await catch_up(pages, 0, 1000)
    assert engine.reads == 2, "expected who comes a moment later to get the same bytes"


async def test_who_wants_other_topics_or_another_offset_gets_its_own() -> None:
    _, pages = await scene(10)
    everything, late, filtered = await asyncio.gather(
        catch_up(pages, 0, 10), catch_up(pages, 7, 10), catch_up(pages, 0, 10, Topics({"other"}))
    )
    assert (everything.split()[0], late, filtered) == (b"0", b"7 8 9 ", b"")


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    _, pages = await scene(10)
    tasks = [asyncio.ensure_future(catch_up(pages, 0, 10)) for _ in range(5)]
    await asyncio.sleep(0.002)
    tasks[0].cancel()
    assert [len((await task).split()) for task in tasks[1:]] == [10] * 4


async def test_a_read_that_failed_is_tried_anew_by_the_next() -> None:
    engine, pages = await scene(10)
    engine.failing = True
    with pytest.raises(StorageFailedError):
        await catch_up(pages, 0, 10)
    engine.failing = False
    assert len((await catch_up(pages, 0, 10)).split()) == 10


async def test_what_is_kept_is_bounded() -> None:
    engine, pages = await scene(1)
    kept = []
    for n in range(20):
        await publish(engine, "s", *["x" * 300_000 for _ in range(2)])
        await pages.encoded(
            2 * n, before=2 * n + 2, topics=None, encode=lambda events: b"".join(e.body for e in events), lane="l"
        )
        kept.append(pages.kept_bytes)
    assert max(kept) <= 2 * 1024 * 1024
    assert kept[-1] > 1024 * 1024


async def test_pages_without_an_event_are_bounded_too() -> None:
    _, pages = await scene(1)
    topics = Topics({"other"})
    reading = (pages.encoded(0, before=1, topics=topics, encode=lambda _: b"", lane=number) for number in range(5000))
    await asyncio.gather(*reading)
    assert len(pages._kept) < 5000


class LateEngine(MemoryEngine):
    """Answers what was there when it was asked, a good while later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def read(
        self,
        session: str,
        offset: int,
        *,
        before: int,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        page = await super().read(session, offset, before=before, limit=limit, topics=topics, epoch=epoch)
        self.asked.set()
        await self.answer.wait()
        return page


async def test_who_asks_after_retention_has_taken_events_is_told_whatever_is_being_read() -> None:
    engine = LateEngine()
    hub = Hub(engine, Runs(engine).settled)
    await publish(engine, "s", 0, 1, 2)
    async with hub.attach("s") as channel:
        early = asyncio.create_task(catch_up(channel.pages, 0, 3))
        await engine.asked.wait()
        await engine.trim("s", 2, epoch=channel.epoch)
        meanwhile = asyncio.create_task(catch_up(channel.pages, 0, 3))
        await asyncio.sleep(0)
        engine.answer.set()
        assert await early == b"0 1 2 "
        assert await meanwhile == b"1 2 ", "expected the gap, which stands where the last of them stood"
        assert await catch_up(channel.pages, 0, 3) == b"1 2 "


async def test_a_long_poll_ends_with_its_session_whenever_that_is_deleted() -> None:
    class Deleting(MemoryEngine):
        async def read(self, session: str, offset: int, **how: Any) -> Page:
            page = await super().read(session, offset, **how)
            await self.delete_session(session)  # it is gone before the answer has come
            return page

    engine = Deleting()
    hub = Hub(engine, Runs(engine).settled)
    await publish(engine, "s", 0)
    asked = longpoll.Asked(topics=None, limit=10, wait=600.0, cache=False)
    request = make_mocked_request("GET", "/")
    request[GRANT] = ANYONE
    async with hub.attach("s") as channel:
        polling = longpoll.forwards(request, channel, channel.tail, asked)
        with pytest.raises(SessionNotFoundError):
            await asyncio.wait_for(polling, 60)
