"""The work for a request ends when its caller leaves: the store is asked for nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support import Served
from wakeline.gateway.http import sessions
from wakeline.gateway.log.engines.memory import MemoryEngine

STEPS = 8
BEGUN = 3
EVENTS = "/v1/sessions/s/events"


class Gate:
    """Lets calls of the store begin one by one, and counts them.

    Attributes:
        begun: The calls that have begun.
    """

    def __init__(self) -> None:
        self.begun = 0
        self._open = asyncio.Semaphore(0)

    def guard(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        inner: Callable[..., Any] = getattr(MemoryEngine, method)

        async def guarded(engine: MemoryEngine, *given: Any, **how: Any) -> Any:
            self.begun += 1
            await self._open.acquire()
            return await inner(engine, *given, **how)

        monkeypatch.setattr(MemoryEngine, method, guarded)

    def let(self, calls: int) -> None:
        for _ in range(calls):
            self._open.release()


async def calls_until_it_left(served: Served, gate: Gate, path: str) -> int:
    """The calls of the store for a request whose caller leaves while the store executes the third."""
    before = await served.metric("wakeline_connections_open")
    caller = asyncio.create_task(served.call("GET", path))
    gate.let(BEGUN - 1)
    async with asyncio.timeout(60):
        while gate.begun < BEGUN:
            await asyncio.sleep(0.01)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        while await served.metric("wakeline_connections_open") > before:
            await asyncio.sleep(0.01)
    gate.let(1000)
    await asyncio.sleep(0.3)
    return gate.begun


async def calls_to_the_end(served: Served, gate: Gate, path: str) -> int:
    """The calls of the store for the same request of a caller that stays."""
    before = gate.begun
    status, _ = await served.call("GET", path)
    assert status == 200
    return gate.begun - before


async def test_a_list_ends_when_its_caller_leaves(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_SCANNED", 2)
    for number in range(2 * STEPS):
        await served.call("PUT", f"/v1/sessions/s-{number}")
    gate, path = Gate(), "/v1/sessions?order=newest&status=running"
    gate.guard(monkeypatch, "newest")
    assert await calls_until_it_left(served, gate, path) == BEGUN
    assert await calls_to_the_end(served, gate, path) >= STEPS


@pytest.mark.parametrize("direction", ["from=beginning", "before=now"])
async def test_a_filtered_read_ends_when_its_caller_leaves(
    served: Served, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    for _ in range(STEPS):
        await served.publish("s", {"topic": "t", "data": "x" * 300_000})  # over what one page scans
    gate, path = Gate(), f"{EVENTS}?topics=none&{direction}"
    gate.guard(monkeypatch, "read")
    gate.guard(monkeypatch, "read_back")
    assert await calls_until_it_left(served, gate, path) == BEGUN
    assert await calls_to_the_end(served, gate, path) >= STEPS


async def test_a_compact_page_ends_when_its_caller_leaves(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(STEPS):
        await served.publish("s", {"topic": "t", "data": "x" * 300_000})
    gate, path = Gate(), f"{EVENTS}?view=compact"
    gate.guard(monkeypatch, "read")
    assert await calls_until_it_left(served, gate, path) == BEGUN
    assert await calls_to_the_end(served, gate, path) >= STEPS - BEGUN


async def test_a_caller_that_leaves_a_compact_page_takes_it_from_no_other(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(STEPS):
        await served.publish("s", {"topic": "t", "data": "x" * 300_000})
    gate, path = Gate(), f"{EVENTS}?view=compact"
    gate.guard(monkeypatch, "read")
    leaves, stays = (asyncio.create_task(served.call("GET", path)) for _ in range(2))
    gate.let(1)
    async with asyncio.timeout(60):
        while gate.begun < 2:
            await asyncio.sleep(0.01)
        leaves.cancel()
        gate.let(1000)
        status, page = await stays
    assert (status, [event["offset"] for event in page["events"]]) == (200, list(range(STEPS)))
