"""A session has only so many open requests."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from tests.support import Served
from tests.unit.conftest import Serve
from tests.unit.requests.test_requests_http import ASKED, PATH, answer, ask
from wakeline.gateway.log import Record
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.requests import room
from wakeline.gateway.sessions import InputRequest, InputRequests, Intents, Remembered, Requested, Run, Runs


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
    async with asyncio.timeout(60):
        while (await served.call("POST", PATH, json={**ASKED, "id": "pay-9"}))[0] == 429:
            await asyncio.sleep(0.05)
    listed = (await served.call("GET", PATH))[1]["requests"]
    assert {request["id"] for request in listed} == {*opened[1:], "pay-9"}


async def test_a_session_has_only_so_many_bytes_of_open_requests(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_OPEN_BYTES", 20_000)
    big = {"message": "m" * 8_000}
    await ask(served, id="pay-1", **big)
    await ask(served, id="pay-2", **big)
    status, body = await served.call("POST", PATH, json={**ASKED, "id": "pay-3", **big})
    assert (status, body["error"]["code"]) == (429, "limit_reached")
    await answer(served, id="pay-1")
    async with asyncio.timeout(60):
        while (await served.call("POST", PATH, json={**ASKED, "id": "pay-3", **big}))[0] == 429:
            await asyncio.sleep(0.05)


async def test_an_outcome_that_is_not_delivered_counts_as_an_open_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_OPEN", 3)
    engine = MemoryEngine()
    await Runs(engine).put("order-1", Run("order-1", "r1", "r1", "r1", "Order", ""))
    served = await serve(log=engine, temporal="127.0.0.1:1", no_auth=True)  # Temporal is away
    for number in range(3):
        await ask(served, id=f"pay-{number}", deliver={"name": "paid"})
        await answer(served, id=f"pay-{number}")
    status, body = await served.call("POST", PATH, json={**ASKED, "id": "pay-3"})
    assert (status, body["error"]["code"]) == (429, "limit_reached")
    assert "not delivered" in body["error"]["hint"]
    assert (await served.call("GET", PATH))[1]["requests"] == []
    assert [intent.kind async for intent, _ in Intents(engine).unfinished()] == ["signal"] * 3
    await Remembered(engine, 86_400.0, lambda _: True, lambda: time.time() + 90 * 86_400.0).sweep()
    assert (await served.call("GET", f"{PATH}/pay-0"))[1]["status"] == "resolved"  # remembered until its run has it


async def test_answers_that_are_not_delivered_have_only_so_many_bytes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_OPEN_BYTES", 20_000)
    engine = MemoryEngine()
    await Runs(engine).put("order-1", Run("order-1", "r1", "r1", "r1", "Order", ""))
    served = await serve(log=engine, temporal="127.0.0.1:1", no_auth=True)
    free = {**ASKED, "choices": None, "deliver": {"name": "paid"}}
    statuses = []
    for number in range(4):
        await served.call("POST", PATH, json={**free, "id": f"pay-{number}"})
    for number in range(4):
        statuses.append((await served.call("POST", f"{PATH}/pay-{number}", json={"payload": "y" * 15_000}))[0])
    assert statuses == [200, 200, 429, 429]


class Counting(MemoryEngine):
    """An engine that counts the bytes of records that are read together."""

    bytes_read = 0

    async def records_after(self, key: str, *, prefix: str = "", limit: int | None = 100) -> list[Record]:
        records = await super().records_after(key, prefix=prefix, limit=limit)
        self.bytes_read += sum(len(record.value) for record in records)
        return records


async def test_a_list_reads_the_requests_of_its_own_session_and_a_count_reads_none() -> None:
    engine = Counting()
    records = InputRequests(engine)
    large = Requested(id="r", reason="approval", message="m" * 8_000)
    for session in ("m", "m/1", "m/a", "m0"):
        for number in range(40):
            await records.create(request(session, msgspec.structs.replace(large, id=f"r-{number}")))
    assert [len(found) for found in (await records.page("m", "", 1))[:1]] == [1]
    assert engine.bytes_read < 30 * 8_500
    engine.bytes_read = 0
    found, after = await records.page("m", "", 1000)
    assert (len(found), after, {each.session for each in found}) == (40, None, {"m"})
    assert engine.bytes_read < 50 * 8_500
    engine.bytes_read = 0
    assert (await records.count_open("m"))[0] == 40
    assert engine.bytes_read == 0
    assert len([each async for each in records.open()]) == 160


def request(session: str, requested: Requested) -> InputRequest:
    return InputRequest(session=session, epoch="e", asked="", requested=requested)
