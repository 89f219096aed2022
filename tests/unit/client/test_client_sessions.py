"""Steering sessions from Python: state, pages, positions, lifecycle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.conftest import Serve
from wakeline.client import Retention, SessionClient
from wakeline.errors import (
    RequestInvalidError,
    SessionClosedError,
    SessionNotFoundError,
    TemporalUnavailableError,
)


@pytest.fixture
async def client(served: Served) -> AsyncIterator[SessionClient]:
    async with SessionClient(served.url) as client:
        yield client


async def test_the_state_of_a_session(client: SessionClient) -> None:
    session = client.session("s")
    with pytest.raises(SessionNotFoundError):
        await session.state()
    published = await session.publish("t")
    state = await session.state()
    assert (state.session, state.epoch, state.first_offset, state.next_offset) == ("s", published.epoch, 0, 1)
    assert (state.cursor, state.closed, state.settled, state.runs) == (f"{published.epoch}-1", False, False, [])
    assert state.created.utcoffset() is not None


async def test_every_session_by_name(client: SessionClient) -> None:
    names = sorted(f"s{n:03}" for n in range(130))
    await asyncio.gather(*(client.session(name).publish("t") for name in names))
    assert [state.session async for state in client.sessions()] == names
    assert [state.session async for state in client.sessions(after="s127")] == ["s128", "s129"]


async def test_pages_forwards_and_backwards(client: SessionClient) -> None:
    session = client.session("s")
    await session.publish_many([("even" if n % 2 == 0 else "odd", n) for n in range(7)])
    page = await session.page(limit=4)
    assert ([e.data for e in page.events], page.up_to_date) == ([0, 1, 2, 3], False)
    assert page.events[-1].cursor == page.cursor
    page = await session.page(from_=page.cursor)
    assert ([e.data for e in page.events], page.up_to_date) == ([4, 5, 6], True)
    seen: list[list[int]] = []
    before: str | None = "now"
    while before is not None:
        page = await session.page(before=before, limit=3, topics="even")
        seen.append([e.data for e in page.events])
        before = page.previous
    assert [data for data in seen if data] == [[2, 4, 6], [0]]
    with pytest.raises(RequestInvalidError):
        await session.page(before="now", from_="beginning")


async def test_a_page_can_be_waited_for(client: SessionClient) -> None:
    session = client.session("s")
    await session.publish("t", 0)
    waiting = asyncio.ensure_future(session.page(from_=(await session.state()).cursor, wait=20))
    await asyncio.sleep(0.2)
    await session.publish("t", 1)
    assert [e.data for e in (await waiting).events] == [1]
    assert (await session.page(from_="now", wait=0.05)).events == []


async def test_devices_go_on_after_what_they_have_acknowledged(client: SessionClient) -> None:
    session = client.session("s")
    await session.publish_many([("t", n) for n in range(5)])
    async with session.events(device="phone", from_="device") as events:
        seen = [await anext(events) for _ in range(3)]
        device = await session.acknowledge(seen[1], device="phone")
        assert (device.device, device.seen, device.lag, device.connected) == ("phone", seen[1].cursor, 3, True)
    async with session.events(device="phone", from_="device") as events:
        assert (await anext(events)).offset == 2
    assert (await session.acknowledge(seen[0].cursor, device="phone")).seen == seen[1].cursor
    await session.acknowledge(seen[0], device="tab/1")
    await session.acknowledge(seen[2], device="phone", everywhere=True)
    assert {d.device: d.lag for d in await session.devices()} == {"phone": 2, "tab/1": 2}
    await session.forget_device("tab/1")
    assert [d.device for d in await session.devices()] == ["phone"]


async def test_devices_are_the_users_own(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    alice, bob = (SessionClient(served.url, token(sub=sub, allow=["read", "ack", "publish"])) for sub in "ab")
    async with alice, bob:
        event = await alice.session("s").publish("t")
        await alice.session("s").acknowledge(f"{event.epoch}-1", device="phone")
        assert [(d.user, d.device) for d in await alice.session("s").devices()] == [("a", "phone")]
        assert await bob.session("s").devices() == []


async def test_a_session_that_is_closed_is_read_to_its_end(client: SessionClient) -> None:
    session = client.session("s")
    await session.publish("t", 0)
    async with asyncio.timeout(60):
        async with session.events() as events, session.events(topics="t") as filtered:
            await anext(events)
            await anext(filtered)
            await session.close()
            assert [e.topic async for e in events] == ["$session.closed"]
            assert [e async for e in filtered] == []
        await session.close()
        assert [e.topic async for e in session.events()] == ["t", "$session.closed"]
    with pytest.raises(SessionClosedError):
        await session.publish("t")
    assert (await session.state()).closed


async def test_a_session_that_is_deleted_ends_its_readings_with_an_error(client: SessionClient) -> None:
    session = client.session("s")
    epoch = (await session.publish("t", 0)).epoch
    async with asyncio.timeout(60), session.events() as events:
        await anext(events)
        await session.delete()
        with pytest.raises(SessionNotFoundError):
            await anext(events)
    with pytest.raises(SessionNotFoundError):
        await session.delete()
    assert (await session.publish("t", 1)).epoch != epoch


async def test_a_session_is_created_with_a_retention_that_can_be_changed(client: SessionClient) -> None:
    session = client.session("s")
    state = await session.create(retention=Retention(age=60, events=100))
    assert (state.next_offset, state.retention) == (0, Retention(age=60, events=100))
    await session.create(retention=Retention(events=2))
    assert (await session.state()).retention == Retention(events=2)
    assert (await client.session("plain").create()).next_offset == 0


async def test_what_retention_has_taken_is_told_in_every_view(client: SessionClient) -> None:
    session = client.session("s")
    await session.create(retention=Retention(events=3))
    await session.publish_many([("t", n) for n in range(10)])
    async with asyncio.timeout(60):
        while (first := (await session.state()).first_offset) == 0:
            await asyncio.sleep(0.05)
        for topics in (None, "t"):
            async with session.events(topics=topics) as events:
                gap = await anext(events)
                assert (gap.topic, gap.offset, gap.data["first_available"]) == ("$gap", first - 1, first)
                assert (await anext(events)).offset == first


async def test_without_temporal_no_workflow_can_be_registered(client: SessionClient) -> None:
    with pytest.raises(TemporalUnavailableError):
        await client.register("order-1", session="orders")
