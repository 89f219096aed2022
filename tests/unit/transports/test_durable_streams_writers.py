"""Those who write to a stream: producers, which send again what they were not told of, and writers that keep an order."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.durable import CLOSED, Durable
from tests.support import Served
from tests.unit.conftest import on_disk
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings


def producer(sequence: int, epoch: int = 0, name: str = "p") -> dict[str, str]:
    return {"Producer-Id": name, "Producer-Epoch": str(epoch), "Producer-Seq": str(sequence)}


async def test_a_producer_is_apart_from_a_publisher_of_its_name(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    await served.publish("s", {"topic": "t"}, publisher="p", sequence="0")
    assert (await stream.post([1, 2, 3], **producer(0))).status == 200
    assert (await stream.post([4], **producer(1))).status == 200
    again = await stream.post([1, 2, 3], **producer(0))
    assert (again.status, again.headers["Producer-Seq"]) == (204, "1")
    assert (await stream.get()).json == [None, 1, 2, 3, 4]


async def test_a_producer_is_refused_with_what_was_expected(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    gap = await stream.post([1], **producer(3))
    assert gap.error == (409, "sequence_gap")
    assert gap.headers["Producer-Expected-Seq"] == "0"
    assert gap.headers["Producer-Received-Seq"] == "3"
    await stream.post([1], **producer(0, epoch=4))
    stale = await stream.post([1], **producer(1, epoch=3))
    assert stale.error == (403, "attempt_fenced")
    assert stale.headers["Producer-Epoch"] == "4"
    assert (await stream.post([1], **producer(1, epoch=5))).error == (400, "request_invalid")
    assert (await stream.get()).json == [1]


async def test_a_producer_that_closes_gets_its_answer_again(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    await stream.post([0], **producer(0))
    first = await stream.post([1], **producer(1), **CLOSED)
    assert first.status == 200
    for _ in range(2):
        again = await stream.post([1], **producer(1), **CLOSED)
        assert (again.status, again.next, again.headers["Stream-Closed"]) == (204, first.next, "true")
    assert (await stream.post([0], **producer(0))).status == 204  # it was acknowledged once, whatever happened since
    assert (await stream.post([2], **producer(2))).error == (409, "session_closed")
    assert (await stream.get()).json == [0, 1]


async def test_a_duplicate_does_not_close(served: Served) -> None:
    stream = Durable(served)
    await stream.put()
    await stream.post([0], **producer(0))
    again = await stream.post([0], **producer(0), **CLOSED)
    assert again.status == 204
    assert "Stream-Closed" not in again.headers
    assert (await stream.post([1], **producer(1))).status == 200


async def test_the_order_of_writers_outlives_the_gateway_and_not_the_stream(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), port=0, no_auth=True)
    async with gateway(settings) as url, Served(url) as served:
        stream = Durable(served)
        await stream.put()
        assert (await stream.post([1], **{"Stream-Seq": "b"})).status == 204
    async with gateway(settings) as url, Served(url) as served:
        stream = Durable(served)
        assert (await stream.post([2], **{"Stream-Seq": "b"})).error == (409, "stream_conflict")
        assert (await stream.post([2], **{"Stream-Seq": "B"})).error == (409, "stream_conflict")
        assert (await stream.post([2], **{"Stream-Seq": "b0"})).status == 204
        await stream.delete()
        await stream.put()
        assert (await stream.post([3], **{"Stream-Seq": "a"})).status == 204
        assert (await stream.get()).json == [3]


@on_disk
async def test_requests_of_a_producer_may_come_in_any_order(served: Served) -> None:
    stream = Durable(served)
    await stream.put()

    async def send(n: int) -> None:
        async with asyncio.timeout(60):
            while (answer := await stream.post([n], **producer(n))).status != 200:
                assert answer.error == (409, "sequence_gap")
                await asyncio.sleep(0.002)

    await asyncio.gather(*[send(n) for n in reversed(range(40))])
    assert (await stream.get()).json == list(range(40))


@on_disk
async def test_a_reader_at_full_speed_never_goes_back(served: Served) -> None:
    stream = Durable(served)
    offset = (await stream.put()).next
    writing = asyncio.create_task(write(stream, 300))
    got: list[int] = []
    while len(got) < 300:
        page = await stream.get(f"?offset={offset}")
        assert page.next >= offset
        got += page.json
        offset = page.next
    await writing
    assert got == list(range(300))


async def write(stream: Durable, count: int) -> None:
    for n in range(count):
        assert (await stream.post([n])).status == 204
