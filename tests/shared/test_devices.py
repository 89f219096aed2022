"""A device gets everything in order at whichever gateway it is, whichever gateway took it, whatever becomes of wake-ups."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.shared.conftest import Start
from tests.sharing import Faults
from tests.support import Served

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
