"""A session has only so many open requests."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import Served
from tests.unit.requests.test_requests_http import ASKED, PATH, answer, ask
from wakeline.gateway.requests import room


async def test_a_session_has_only_so_many_open_requests(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_OPEN", 3)
    asked = await asyncio.gather(
        *(served.call("POST", PATH, json={**ASKED, "id": f"pay-{number}"}) for number in range(4))
    )
    assert sorted(status for status, _ in asked) == [200, 200, 200, 429]
    (refused,) = [body["error"] for status, body in asked if status == 429]
    assert refused["code"] == "limit_reached"
    opened = [body["id"] for status, body in asked if status == 200]
    await ask(served, id=opened[0])  # it is the request that is there
    await answer(served, id=opened[0])
    async with asyncio.timeout(30):
        while (await served.call("POST", PATH, json={**ASKED, "id": "pay-9"}))[0] == 429:
            await asyncio.sleep(0.05)
    listed = (await served.call("GET", PATH))[1]["requests"]
    assert {request["id"] for request in listed} == {*opened[1:], "pay-9"}
