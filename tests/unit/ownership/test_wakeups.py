"""Hints reach the owner, many in one write, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from wakeline.errors import StorageFailedError
from wakeline.gateway.log import MAX_RECORD_BYTES, Record
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.ownership import wakeups as module
from wakeline.gateway.ownership.wakeups import Wakeups

Start = Callable[[str], Awaitable[tuple[Wakeups, list[tuple[str, str]]]]]


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
async def start(engine: MemoryEngine) -> AsyncIterator[Start]:
    """Start a gateway's wake-ups, and return the hints that it receives; it owns the names that begin with its own."""
    async with AsyncExitStack() as stack:

        async def one(gateway: str) -> tuple[Wakeups, list[tuple[str, str]]]:
            received: list[tuple[str, str]] = []
            wakeups = Wakeups(engine, gateway, lambda name: name.startswith(gateway))
            wakeups.listen("s", lambda name, detail: received.append((name, detail)))
            await wakeups.start()
            stack.push_async_callback(wakeups.stop)
            return wakeups, received

        yield one


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_hint_reaches_the_owner_once_and_nobody_else(start: Start, engine: MemoryEngine) -> None:
    a, b, c = await start("a"), await start("b"), await start("c")
    for _ in range(3):
        a[0].wake("s", "b1", "x")
    a[0].wake("s", "a1", "x")
    a[0].wake("other", "b1", "x")
    await until(lambda: b[1] == [("b1", "x")])
    a[0].wake("s", "b2", "y")
    await until(lambda: b[1] == [("b1", "x"), ("b2", "y")])
    await asyncio.sleep(0.3)
    assert (a[1], len(b[1]), c[1]) == ([], 2, [])


@pytest.mark.parametrize("urgent", [True, False])
async def test_a_flood_of_long_hints_fits_into_records_and_arrives(
    urgent: bool, start: Start, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 4.0)  # longer than a stall
    (a, _), (_, received) = await start("a"), await start("b")
    sent = [(f"b{number}" + "\u0001" * 900, "\N{SNOWMAN}" * 20) for number in range(40)]
    largest = 0
    for name, detail in sent:
        a.wake("s", name, detail, urgent=urgent)
    async with asyncio.timeout(200):
        while len(received) < len(sent):
            largest = max([largest, *(len(record.value) for record in await engine.records("wakeups/"))])
            await asyncio.sleep(0.02)
    assert received == sent
    assert largest <= MAX_RECORD_BYTES


async def test_an_urgent_hint_does_not_wait_for_a_flood_of_others(
    start: Start, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 600.0)  # the others fill their part of the record
    (a, _), (_, received) = await start("a"), await start("b")
    for number in range(100):
        a.wake("s", f"b{number}" + "x" * 900, "", urgent=False)
    await until(lambda: bool(received))
    a.wake("s", "b", "now")
    await until(lambda: ("b", "now") in received)
    assert 0 < received.index(("b", "now")) < 50


async def test_the_record_of_a_gateway_is_removed_when_it_is_silent_or_stops(
    start: Start, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ABANDONED_SECONDS", 0.5)
    (a, _), (_, received) = await start("a"), await start("b")
    a.wake("s", "b1", "")
    await until(lambda: len(received) == 1)
    async with asyncio.timeout(60):
        while await engine.records("wakeups/"):
            await asyncio.sleep(0.02)
    a.wake("s", "b2", "")
    await until(lambda: len(received) == 2)
    await a.stop()
    assert not await engine.records("wakeups/")


@pytest.mark.parametrize("error", [StorageFailedError("the disk is away"), ValueError("unexpected")])
async def test_a_hint_arrives_after_an_outage_that_is_longer_than_hints_are_kept(
    error: Exception, start: Start, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.5)
    put, failures = engine.put_record, [error] * 4

    async def fail(key: str, value: bytes, *, revision: int) -> Record:
        if key == "wakeups/a" and failures:
            raise failures.pop()
        return await put(key, value, revision=revision)

    monkeypatch.setattr(engine, "put_record", fail)
    (a, _), (_, received) = await start("a"), await start("b")
    a.wake("s", "b1", "x")
    await until(lambda: received == [("b1", "x")])
    assert not failures
