"""Callers that wait for a request are woken by that request's events alone."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.contract.test_requests import ALICE, answer
from wakeline.gateway.delivery import Accept
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.requests import Asked, Requests
from wakeline.gateway.sessions import InputRequest, InputRequests, Runs
from wakeline.gateway.settings import Settings

READ = 2 + 5
"""Reads of a request that was asked, and that five callers wait for."""


class Counting(InputRequests):
    """Records that count how often each request is looked up."""

    found: Counter[str]

    async def find(self, session: str, id: str) -> InputRequest | None:
        self.found[id] += 1
        return await super().find(session, id)


async def test_a_caller_that_waits_does_not_read_at_the_events_of_other_requests() -> None:
    engine = MemoryEngine()
    records = Counting(engine)
    records.found = Counter()
    ownership = Ownership(engine, 10.0, shared=engine.shared)
    requests = Requests(records, engine, Accept(engine), ownership, Settings(), Metrics(), Runs(engine).names)
    await requests.ask("s", Asked(id="pay", reason="approval"), None)
    waiting = [asyncio.create_task(requests.find("s", "pay", 60.0)) for _ in range(5)]
    async with asyncio.timeout(60):
        while records.found["pay"] < READ:
            await asyncio.sleep(0)
    for number in range(20):
        await requests.ask("s", Asked(id=f"other-{number}", reason="approval"), None)
        await requests.answer("s", f"other-{number}", answer("yes"), ALICE)
    assert records.found["pay"] == READ
    await requests.answer("s", "pay", answer("yes"), ALICE)
    assert {(await each).status for each in waiting} == {"resolved"}


async def test_the_deletion_of_a_session_wakes_those_that_wait_for_its_requests() -> None:
    engine = MemoryEngine()
    ownership = Ownership(engine, 10.0, shared=engine.shared)
    requests = Requests(
        InputRequests(engine), engine, Accept(engine), ownership, Settings(), Metrics(), Runs(engine).names
    )
    epoch = (await requests.ask("s", Asked(id="pay", reason="approval"), None)).epoch
    waiting = asyncio.create_task(requests.find("s", "pay", 60.0))
    await asyncio.sleep(0)
    await engine.delete_session("s")
    await InputRequests(engine).forget("s", epoch)
    async with asyncio.timeout(60):
        assert "RequestNotFound" in repr((await asyncio.gather(waiting, return_exceptions=True))[0])
