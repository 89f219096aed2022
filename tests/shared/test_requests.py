"""Requests for input at several gateways on one store that is slow and loses answers: all of them see one outcome."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from tests.shared.conftest import FAULTS, Gateway, Start

PATH = "/v1/sessions/s/requests"


async def answered(served: Gateway, id: str, payload: str) -> tuple[int, Any]:
    """The answer to an answer, which is repeated while the store does not tell."""
    while True:
        status, told = await served.call("POST", f"{PATH}/{id}", json={"payload": payload})
        if status != 503:
            return status, told
        await asyncio.sleep(0.01)


async def test_of_answers_at_three_gateways_one_counts_at_all_of_them(start: Start) -> None:
    faults = replace(FAULTS, lost_answers=0.1)
    gateways = [await start(faults) for _ in range(3)]
    for n in range(10):
        while (await gateways[n % 3].call("POST", PATH, json={"id": f"r{n}", "reason": "approval"}))[0] != 200:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(answered(one, f"r{n}", f"of {at}") for at, one in enumerate(gateways)))
        outcomes = [told["outcome"] if status == 200 else told["error"]["outcome"] for status, told in answers]
        assert sorted(status for status, _ in answers) == [200, 409, 409]
        assert outcomes == [outcomes[0]] * 3
        for served in gateways:
            assert (await served.call("GET", f"{PATH}/r{n}"))[1]["outcome"] == outcomes[0]
    _, page = await gateways[0].call("GET", "/v1/sessions/s/events?topics=$input.resolved")
    assert [event["data"]["request"] for event in page["events"]] == [f"r{n}" for n in range(10)]


async def test_a_waiting_asker_learns_of_an_answer_at_another_gateway(start: Start) -> None:
    first, second = await start(), await start()
    await first.call("POST", PATH, json={"id": "r", "reason": "approval"})
    waiting = asyncio.create_task(first.call("GET", f"{PATH}/r?wait=60"))
    await asyncio.sleep(0)
    await answered(second, "r", "yes")
    async with asyncio.timeout(60):
        assert (await waiting)[1]["outcome"]["payload"] == "yes"


async def test_requests_of_a_gateway_that_has_ended_expire(start: Start) -> None:
    first, second = await start(), await start()
    await first.call("POST", PATH, json={"id": "r", "reason": "approval", "expires_in": 0.5})
    first.engine.cut = True
    stream = await second.stream("s", "topics=$input.resolved")
    async with asyncio.timeout(60):
        assert (await stream.next())["data"] == {"request": "r", "status": "expired"}
