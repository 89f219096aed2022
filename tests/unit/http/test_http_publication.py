"""The publication of one event over HTTP, and what it costs a gateway."""

from __future__ import annotations

import asyncio

from tests.unit.conftest import Serve
from wakeline.gateway.log import Published
from wakeline.gateway.log.engines.memory import MemoryEngine

EVENTS = "/v1/sessions/s/events"


class Searched(MemoryEngine):
    """An engine that takes its time for a publication, and counts how many it searches for at once."""

    now = most = 0

    async def published(self, session: str, offset: int, *, epoch: str) -> Published | None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        return await super().published(session, offset, epoch=epoch)


async def test_a_gateway_searches_for_one_publication_at_a_time(serve: Serve) -> None:
    engine = Searched()
    served = await serve(log=engine)
    await served.publish("s", *({"topic": "t"} for _ in range(8)))
    answers = await asyncio.gather(*(served.call("GET", f"{EVENTS}/{offset}") for offset in range(8)))
    assert [(status, answer["event"]["offset"]) for status, answer in answers] == [(200, n) for n in range(8)]
    assert engine.most == 1


async def test_events_of_one_request_of_a_producer_have_its_number(serve: Serve) -> None:
    served = await serve()
    json_body = {"Content-Type": "application/json"}
    assert (await served.call("PUT", "/v1/stream/s", headers=json_body))[0] == 201
    for sequence, values in enumerate(([1, 2, 3], [4])):
        producer = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(sequence)}
        async with served.http.post("/v1/stream/s", json=values, headers=producer) as answer:
            assert answer.status in (200, 204), await answer.text()
    found = [(await served.call("GET", f"{EVENTS}/{offset}"))[1] for offset in range(4)]
    assert [one["event"]["data"] for one in found] == [1, 2, 3, 4]
    assert [one["publication"]["sequence"] for one in found] == [0, 0, 0, 1]
    assert {(one["publication"]["publisher"], one["publication"]["attempt"]) for one in found} == {("producer:p", 1)}
