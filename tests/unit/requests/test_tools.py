"""Tools on devices: one device at a time claims the request, and its value is the answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.support import Served
from tests.unit.requests.test_requests_http import PATH, answer, events
from wakeline.client import SessionClient
from wakeline.errors import ClaimedError, ClaimRequiredError

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOL: dict[str, Any] = {"id": "t", "reason": "read_file", "kind": "tool", "response_schema": SCHEMA}
VALUE = {"text": "hello"}


async def claim(served: Served, device: str, **more: Any) -> tuple[int, Any]:
    return await served.call("POST", f"{PATH}/t/claim", json={"device": device, **more})


@pytest.fixture
async def asked(served: Served) -> Served:
    status, told = await served.call("POST", PATH, json={**TOOL, "metadata": {"path": "a.txt"}})
    assert (status, told["kind"]) == (200, "tool")
    return served


TWO_GATEWAYS = True


async def test_a_device_claims_a_tool_runs_it_and_answers(asked: Served) -> None:
    status, claimed = await claim(asked, "phone")
    assert (status, claimed["claim"]["device"]) == (200, "phone")
    assert (await claim(asked, "phone"))[1] == claimed  # long enough
    status, refused = await claim(asked, "laptop")
    assert (status, refused["error"]["code"], refused["error"]["until"]) == (409, "claimed", claimed["claim"]["until"])
    status, refused = await answer(asked, VALUE, "t", device="laptop")
    assert (status, refused["error"]["code"]) == (409, "claim_required")
    assert (await answer(asked, {"text": 1}, "t", device="phone"))[1]["error"]["code"] == "value_invalid"
    status, answered = await answer(asked, VALUE, "t", device="phone")
    assert (status, answered["outcome"]["payload"]) == (200, VALUE)
    assert (await claim(asked, "laptop"))[1]["error"]["code"] == "already_resolved"
    assert [topic for topic, _ in await events(asked)] == ["$input.requested", "$input.claimed", "$input.resolved"]


async def test_a_tool_that_no_device_has_claimed_has_no_answer(asked: Served) -> None:
    for body in ({"payload": VALUE, "device": "phone"}, {"status": "cancelled", "device": "phone"}):
        status, refused = await asked.call("POST", f"{PATH}/t", json=body)
        assert (status, refused["error"]["code"]) == (409, "claim_required")


async def test_of_devices_that_claim_at_once_one_runs_the_tool(asked: Served) -> None:
    claims = await asyncio.gather(*(claim(asked, f"device-{n}") for n in range(20)))
    assert sorted(status for status, _ in claims) == [200] + [409] * 19


async def test_a_device_that_goes_away_loses_its_claim(asked: Served) -> None:
    async with SessionClient(asked.url) as client:
        session = client.session("order-1")
        await session.claim("t", device="phone", lease=timedelta(seconds=1))
        async with asyncio.timeout(60):
            while True:
                try:
                    claimed = await session.claim("t", device="laptop")
                    break
                except ClaimedError:
                    await asyncio.sleep(0.05)
        assert claimed.claim is not None
        assert claimed.claim["device"] == "laptop"
        with pytest.raises(ClaimRequiredError):
            await session.answer("t", VALUE, device="phone")
        assert (await session.answer("t", VALUE, device="laptop")).status == "resolved"


async def test_a_claim_is_renewed_and_one_that_has_lapsed_is_good_until_another_takes_it(asked: Served) -> None:
    _, first = await claim(asked, "phone", lease=1)
    async with asyncio.timeout(60):
        while (await claim(asked, "phone", lease=1))[1]["claim"] == first["claim"]:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0)
    until = (await claim(asked, "phone", lease=1))[1]["claim"]["until"]
    assert until > first["claim"]["until"]
    assert (await answer(asked, VALUE, "t", device="phone"))[0] == 200


async def test_only_a_tool_can_be_claimed_by_a_device_that_says_who_it_is(asked: Served) -> None:
    await asked.call("POST", PATH, json={"id": "q", "reason": "approval"})
    status, refused = await asked.call("POST", f"{PATH}/q/claim", json={"device": "phone"})
    assert (status, refused["error"]["code"]) == (400, "request_invalid")
    for body in ({}, {"device": ""}, {"device": "phone", "lease": 0}):
        assert (await asked.call("POST", f"{PATH}/t/claim", json=body))[0] == 400
    assert (await asked.call("POST", PATH, json={**TOOL, "id": "u", "needs": 2}))[0] == 400
