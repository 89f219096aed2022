"""A device gets everything in order at whichever gateway it is, whichever gateway took it, whatever becomes of wake-ups."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.feeds import feed
from tests.shared.conftest import Start, simulated
from tests.sharing import Faults
from tests.support import Served, Stream
from wakeline.gateway.delivery import channel

EVENTS = "/v1/sessions/s/events"


async def publish(served: Served, *data: Any, close: bool = False) -> None:
    body = {"events": [{"topic": "t", "data": each} for each in data]}
    status, answer = await served.call("POST", EVENTS, json=body)
    assert status == 200, answer
    if close:
        assert (await served.call("POST", "/v1/sessions/s/close"))[0] == 200


async def test_devices_at_either_gateway_get_everything_in_order(start: Start) -> None:
    gateways = [await start(), await start()]
    await publish(gateways[0], -1)
    streams = [await served.stream("s") for served in gateways for _ in range(3)]
    reading = [asyncio.create_task(stream.rest()) for stream in streams]
    for number in range(100):
        await publish(gateways[number % 2], number)
    await publish(gateways[0], 100, close=True)
    async with asyncio.timeout(60):
        received = await asyncio.gather(*reading)
    for events in received:
        assert [event["offset"] for event in events] == list(range(103))
        assert [event.get("data") for event in events[:-1]] == list(range(-1, 101))
        assert events[-1]["topic"] == "$session.closed"


async def test_a_deletion_at_one_gateway_ends_the_readers_at_the_other(start: Start) -> None:
    first, second = await start(), await start()
    await publish(first, 1)
    stream = await second.stream("s")
    assert (await stream.next())["data"] == 1
    assert (await first.call("DELETE", "/v1/sessions/s"))[0] == 204
    async with asyncio.timeout(60):
        assert await stream.rest() == []
    await publish(first, 2)
    async with asyncio.timeout(60):
        assert (await (await second.stream("s")).next())["data"] == 2


async def test_a_long_poll_at_one_gateway_is_answered_by_a_publication_at_the_other(start: Start) -> None:
    first, second = await start(), await start()
    await publish(first, 1)
    _, page = await second.call("GET", f"{EVENTS}?from=beginning")
    waiting = asyncio.create_task(second.call("GET", f"{EVENTS}?from={page['cursor']}&wait=60"))
    await asyncio.sleep(0.1)
    await publish(first, 2)
    async with asyncio.timeout(40):  # the poll alone would wait longer
        _, page = await waiting
    assert [event["data"] for event in page["events"]] == [2]


@simulated
async def test_an_append_whose_answer_was_lost_is_retried_at_the_other_gateway_without_a_copy(start: Start) -> None:
    gateways = [await start(Faults(latency=0.002, lost_answers=0.3)) for _ in range(2)]
    retried, at = 0, 0
    for number in range(40):
        headers = {"Wakeline-Publisher": "p", "Wakeline-Sequence": str(number)}
        body = {"events": [{"topic": "t", "data": number}]}
        while (answer := await gateways[at % 2].call("POST", EVENTS, json=body, headers=headers))[0] == 503:
            retried, at = retried + 1, at + 1
        assert answer[0] == 200, answer
        assert answer[1]["first_offset"] == number
    assert retried
    _, page = await gateways[0].call("GET", f"{EVENTS}?from=beginning")
    assert [event["data"] for event in page["events"]] == list(range(40))


BEHIND = Faults(lost_wakeups=1.0, poll=0.2)  # the gateway hears of the others only when it polls
WAYS = ["stream", "from=device", "page", "backwards", "WebSocket", "feed"]


async def read_one(served: Served, way: str, cursor: str) -> Any:
    """The data of the event at a cursor, or before it."""
    if way == "WebSocket":
        async with feed(served) as opened:
            await opened.subscribe("s", from_=cursor)
            return (await opened.events(1))[0]["data"]
    if way == "feed":
        async with served.http.get(f"/v1/feed?session=s&from={cursor}") as answer:
            assert answer.status == 200, await answer.text()
            return (await Stream(answer).next())["event"]["data"]
    if way in ("page", "backwards"):
        how = f"from={cursor}&wait=60" if way == "page" else f"before={cursor}&limit=1"
        status, page = await served.call("GET", f"{EVENTS}?{how}")
        assert status == 200, page
        return page["events"][0]["data"]
    stream = await served.stream("s", "device=d&from=device" if way == "from=device" else f"from={cursor}")
    return (await stream.next())["data"]


@simulated
@pytest.mark.parametrize("way", WAYS)
async def test_a_device_reads_on_at_a_gateway_that_has_not_heard_of_what_it_has_read(start: Start, way: str) -> None:
    ahead, behind = await start(), await start(BEHIND)
    await publish(ahead, 0)
    other = await behind.stream("s")  # so that the gateway knows the session, as it was
    assert (await other.next())["data"] == 0
    for number in range(1, 10, 3):
        await publish(ahead, number, number + 1)
        _, page = await ahead.call("GET", EVENTS)
        seen = {"seen": page["cursor"]}
        assert (await ahead.call("PUT", "/v1/sessions/s/devices/d", json=seen))[0] == 200
        reading = asyncio.create_task(read_one(behind, way, page["cursor"]))
        await publish(ahead, number + 2)
        assert await reading == (number + 1 if way == "backwards" else number + 2)
        assert [event["data"] for event in await other.take(3)] == [number, number + 1, number + 2]


@simulated
@pytest.mark.parametrize("way", ["stream", "page", "WebSocket", "feed"])
async def test_a_device_reads_a_new_life_at_a_gateway_that_has_not_heard_of_it(start: Start, way: str) -> None:
    ahead, behind = await start(), await start(BEHIND)
    await publish(ahead, 0)
    other = await behind.stream("s")
    assert (await other.next())["data"] == 0
    assert (await ahead.call("DELETE", "/v1/sessions/s"))[0] == 204
    await publish(ahead, 1, 2)
    _, page = await ahead.call("GET", f"{EVENTS}?limit=1")
    assert await read_one(behind, way, page["cursor"]) == 2
    assert await other.rest() == []


@simulated
@pytest.mark.parametrize("way", ["stream", "page", "feed", "durable"])
async def test_a_gateway_that_hears_nothing_asks_its_readers_to_come_back(
    start: Start, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    ahead, behind = await start(), await start(Faults(lost_wakeups=1.0, poll=3.0))
    await publish(ahead, 0)
    other = await behind.stream("s")
    assert (await other.next())["data"] == 0
    await publish(ahead, 1)
    path = f"{EVENTS}?from={(await ahead.call('GET', EVENTS))[1]['cursor']}"
    if way == "feed":
        assert (await ahead.call("PUT", "/v1/sessions/quiet", json={}))[0] == 201
        path = "/v1/feed?session=s&session=quiet"
        async with ahead.http.get(path) as answer:
            await (feed_of_both := Stream(answer)).take(2)
        path += f"&from={feed_of_both.last_id}"
    elif way == "durable":
        path = "/v1/stream/s"
    monkeypatch.setattr(channel, "_HEARD_WITHIN", 0.01)
    headers = {} if way == "page" else {"Accept": "text/event-stream"}
    status, error = await behind.call("GET", path, headers=headers)
    assert (status, error["error"]["code"]) == (503, "unavailable")
    assert "has not heard yet" in error["error"]["hint"]
    assert (await other.next())["data"] == 1


@simulated
async def test_a_stream_of_a_life_that_a_gateway_has_not_heard_of_is_asked_for_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, behind = await start(), await start(Faults(lost_wakeups=1.0, poll=3.0))
    await publish(ahead, 0)
    other = await behind.stream("s")
    assert (await other.next())["data"] == 0
    assert (await ahead.call("DELETE", "/v1/sessions/s"))[0] == 204
    await publish(ahead, 1)
    with monkeypatch.context() as patch:
        patch.setattr(channel, "_HEARD_WITHIN", 0.01)
        status, error = await behind.call("GET", "/v1/stream/s")
        assert (status, error["error"]["code"]) == (503, "unavailable")
    status, read = await behind.call("GET", "/v1/stream/s")
    assert (status, [event["data"] for event in read]) == (200, [1])
