"""Requests expire in time, whatever else the store has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.requests.expiry import Expiry
from wakeline.gateway.sessions import InputRequest, InputRequests, Requested


class Endless:
    """Records of open requests, which are read for longer than any test."""

    async def open(self) -> AsyncIterator[InputRequest]:
        number = 0
        while True:
            await asyncio.sleep(0.001)
            yield request(f"other-{number}")
            number += 1


def request(id: str, expires_at: str | None = None) -> InputRequest:
    requested = Requested(id=id, reason="approval", expires_at=expires_at)
    return InputRequest(session="s", epoch="e", asked="a", requested=requested)


async def test_a_request_expires_while_those_of_ended_gateways_are_read() -> None:
    closed = asyncio.Event()

    async def find(session: str, id: str) -> InputRequest:
        if id == "r":
            closed.set()
        return request(id)

    async def finish(_: InputRequest) -> None:
        raise AssertionError("no request is closed")

    engine = MemoryEngine()
    ownership = Ownership(engine, 10.0, shared=False)
    expiry = Expiry(cast(InputRequests, Endless()), ownership, 10.0, find, finish, shared=False)
    expiry.start()
    try:
        expiry.note(request("r", expires_at="2026-01-01T00:00:00.000Z"))
        async with asyncio.timeout(60):
            await closed.wait()
    finally:
        await expiry.stop()


async def test_a_record_that_cannot_be_read_hinders_no_other() -> None:
    engine = MemoryEngine()
    records = InputRequests(engine)
    await engine.put_record("requests.open/a\x1funreadable", b'{"of": "a later version"}', revision=0)
    await records.create(request("r"))
    assert [each.id async for each in records.open()] == ["r"]
    await engine.put_record("requests.open/s\x1f0", b"[]", revision=0)
    assert [each.id for each in (await records.page("s", "", 10))[0]] == ["r"]
