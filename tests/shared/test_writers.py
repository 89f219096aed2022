"""Writers of a Durable Stream keep their order, whichever gateways accept their requests."""

from __future__ import annotations

import asyncio
import random

from tests.shared.conftest import Gateway, Start, simulated
from tests.sharing import Faults

STREAM = "/v1/stream/s"


async def post(served: Gateway, value: int, seq: str, **headers: str) -> int:
    headers = {"Content-Type": "application/json", "Stream-Seq": seq, **headers}
    return (await served.http.post(STREAM, data=str(value), headers=headers)).status


async def test_two_gateways_never_accept_the_same_or_a_lower_stream_seq(start: Start) -> None:
    gateways = [await start(Faults(latency=0.02)) for _ in range(2)]
    async with gateways[0].http.put(STREAM, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 201
    for number in range(0, 40, 2):
        statuses = await asyncio.gather(*(post(served, number, f"{number:04d}") for served in gateways * 2))
        assert sorted(statuses) == [204, 409, 409, 409]
    order = [(value, served) for value in range(1000, 1040) for served in gateways]
    random.Random(1).shuffle(order)
    statuses = await asyncio.gather(*(post(served, value, f"{value:04d}") for value, served in order))
    async with gateways[1].http.get(f"{STREAM}?offset=-1") as answer:
        values = await answer.json()
    assert values == sorted(set(values))
    assert statuses.count(204) + 20 == len(values)


@simulated
async def test_a_request_with_a_stream_seq_is_retried_at_another_gateway_without_a_copy(start: Start) -> None:
    gateways = [await start(Faults(latency=0.002, lost_answers=0.3)) for _ in range(2)]
    while (await gateways[0].http.put(STREAM, headers={"Content-Type": "application/json"})).status == 503:
        pass
    retried, at = 0, 0
    for number in range(30):
        producer = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(number)}
        while (status := await post(gateways[at % 2], number, f"{number:04d}", **producer)) == 503:
            retried, at = retried + 1, at + 1
        assert status in (200, 204)
    assert retried
    async with gateways[0].http.get(f"{STREAM}?offset=-1") as answer:
        assert await answer.json() == list(range(30))
