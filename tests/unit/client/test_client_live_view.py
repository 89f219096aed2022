"""`Session.view`: what a session is, whatever happens on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from tests.support import Served
from tests.unit.transports.scripted import EPOCH, opening, scripted
from wakeline.client import (
    EventAdded,
    EventDataError,
    LiveView,
    MessageChanged,
    SessionClient,
    StateChanged,
    Superseded,
    SyncSessionClient,
)

END = web.Response(status=204)
WHO = {"publisher": "p", "run": "r", "activity": "a", "sequence": "0"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.client.stream._FIRST_PAUSE", 0.001)


def delta(text: str, name: str = "m", **more: Any) -> dict[str, Any]:
    return {"topic": "answer", "data": text, "message": {"id": name, "op": "text", **more}}


def state(data: Any) -> dict[str, Any]:
    return {"topic": "status", "data": data, "key": "now"}


async def changes(view: LiveView[Any], count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [await anext(view) for _ in range(count)]


def values(view: LiveView[Any]) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    return (
        {name: message.value for (_, name), message in view.messages.items()},
        {key: event.data for (_, key), event in view.keyed.items()},
        [event.data for event in view.events],
    )


async def test_it_begins_with_what_there_is_and_follows_what_comes(served: Served) -> None:
    await served.publish("s", delta("Hel"), state("busy"), {"topic": "tool", "data": 1}, delta("lo"), state("idle"))
    async with SessionClient(served.url) as client, client.session("s").view() as view:
        tool, message, status = sorted(await changes(view, 3), key=lambda change: type(change).__name__)
        assert isinstance(tool, EventAdded)
        assert isinstance(message, MessageChanged)
        assert isinstance(status, StateChanged)
        assert (message.op, message.data, message.message.complete) == ("set", "Hello", False)
        assert values(view) == ({"m": "Hello"}, {"now": "idle"}, [1])
        await served.publish("s", delta("!", complete=True), state("done"), {"topic": "tool", "data": 2})
        more = await changes(view, 3)
        assert (more[0].op, more[0].data, more[0].message is message.message) == ("text", "!", True)
        assert message.message.complete
        assert values(view) == ({"m": "Hello!"}, {"now": "done"}, [1, 2])


async def test_what_is_superseded_is_taken_out_and_what_was_before_is_there_again(served: Served) -> None:
    await served.publish("s", state("old"), delta("kept "), delta("other", "n"), publisher="q", sequence="0")
    await served.publish("s", state("new"), delta("wrong"), {"topic": "tool", "data": 1}, delta("x", "o"), **WHO)
    async with SessionClient(served.url) as client, client.session("s").view() as view:
        await changes(view, 5)
        gone = view.messages["answer", "o"]
        assert values(view) == ({"m": "kept wrong", "n": "other", "o": "x"}, {"now": "new"}, [1])
        await served.publish("s", delta("right"), attempt="2", **WHO)
        superseded, _ = await changes(view, 2)
        assert isinstance(superseded, Superseded)
        assert superseded.offsets == [(3, 6)]
        assert (superseded.event.offset, superseded.event.attempt) == (7, 2)
        assert [event.data for event in superseded.events] == [1]
        assert sorted(message.id for message in superseded.messages) == ["m", "o"]
        assert superseded.states == [("status", "now")]
        assert not gone.counts
        assert values(view) == ({"m": "kept right", "n": "other"}, {"now": "old"}, [])
        page = await client.session("s").page(view="compact")
        assert [event.data for event in page.events] == ["old", "other", "kept right"]


async def test_a_view_that_begins_later_has_only_what_was_changed_since(served: Served) -> None:
    await served.publish("s", delta("Hel"), state("busy"), {"topic": "tool", "data": 1})
    async with SessionClient(served.url) as client, client.session("s").view(from_="tail:1") as view:
        await changes(view, 1)
        await served.publish("s", delta("lo"))
        await changes(view, 1)
        assert values(view) == ({"m": "lo"}, {}, [1])


async def test_a_message_prints_what_it_is(served: Served) -> None:
    await served.publish("s", delta("Hel"), delta("lo", complete=True), delta("x" * 1000, "n"))
    async with SessionClient(served.url) as client, client.session("s").view() as view:
        await changes(view, 2)
        shown = repr(view.messages["answer", "m"])
        assert shown == "LiveMessage(topic='answer', id='m', value='Hello', complete=True)"
        assert len(repr(view.messages["answer", "n"])) < 100
    async with SessionClient(served.url) as client, client.session("s").view(type=int) as view:
        await changes(view, 2)
        assert "value=<not of the requested type>" in repr(view.messages["answer", "m"])


async def test_it_ends_when_the_session_does(served: Served) -> None:
    await served.publish("s", delta("a"))
    await served.call("POST", "/v1/sessions/s/close")
    async with SessionClient(served.url) as client, asyncio.timeout(60):
        told = [change async for change in client.session("s").view()]
    assert [type(change) for change in told] == [MessageChanged, EventAdded]


def bare(offset: int, data: str = "null") -> bytes:
    return b'data: {"offset":%d,"topic":"t","data":%b,"time":"2026-11-21T05:14:43Z"}\n\n' % (offset, data.encode())


def end(next_offset: int) -> bytes:
    told = b'{"offset":%d,"topic":"$compact","data":{},"time":"2026-11-21T05:14:43Z"}' % (next_offset - 1)
    return b"id: %b-%d\ndata: %b\n\n" % (EPOCH.encode(), next_offset, told)


async def test_a_compact_form_that_was_cut_short_counts_for_nothing() -> None:
    cut = opening(0) + bare(1) + bare(4)
    whole = opening(0) + bare(5) + bare(7) + end(9)
    async with scripted(cut, whole, END) as server, SessionClient(server.url) as client:
        view = client.session("s").view()
        async with asyncio.timeout(60):
            told = [change.event.offset async for change in view if isinstance(change, EventAdded)]
        assert told == [5, 7]
        assert server.asked == ["beginning", f"{EPOCH}-0", f"{EPOCH}-9"]


async def test_data_of_another_type_is_told_and_passed_over(served: Served) -> None:
    await served.publish("s", {"topic": "t", "data": 1}, {"topic": "t", "data": "no"}, {"topic": "t", "data": 3})
    async with SessionClient(served.url) as client, client.session("s").view(type=int) as view:
        assert (await changes(view, 1))[0].event.data == 1
        with pytest.raises(EventDataError):
            await changes(view, 1)
        assert (await changes(view, 1))[0].event.data == 3
    assert [event.data for event in view.events] == [1, 3]


async def test_it_is_there_without_asyncio(served: Served) -> None:
    await served.publish("s", delta("Hel"), delta("lo"), state("idle"), {"topic": "tool", "data": 1})
    await served.call("POST", "/v1/sessions/s/close")

    def read() -> tuple[int, str, list[Any]]:
        with SyncSessionClient(served.url) as client, client.session("s").view(topics=["answer", "tool"]) as view:
            count = len(list(view))
            assert not view.keyed
            return count, view.messages["answer", "m"].value, [event.data for event in view.events]

    assert await asyncio.wait_for(asyncio.to_thread(read), 60) == (2, "Hello", [1])
