"""Gateways on PostgreSQL under pressure: lost wake-ups, devices that vanish together, and a database that is strict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.postgres import PostgresServer, connection_to
from tests.postgres_wire import wire_to
from tests.shared.hearing import Heard
from tests.support import close, data_of, everything, publish
from wakeline.gateway.log import Appended
from wakeline.gateway.log.engines.postgres import PostgresEngine, wakeups

MOST_CONNECTIONS = 9
"""docs/operate/postgresql.md promises it."""


@pytest.fixture
async def address(postgres: PostgresServer) -> str:
    return await postgres.database()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def opened(stack: AsyncExitStack, address: str) -> PostgresEngine:
    engine = PostgresEngine(address)
    await engine.open()
    stack.push_async_callback(engine.close)
    return engine


async def test_a_poll_finds_what_a_lost_wake_up_has_announced(
    postgres: PostgresServer, address: str, stack: AsyncExitStack
) -> None:
    wire = await stack.enter_async_context(wire_to(postgres.port))
    first, second = await opened(stack, address), await opened(stack, wire.address(address))
    await publish(first, "s", 0)
    heard = Heard(second, "s")
    assert await second.state("s") is not None
    await publish(first, "s", 1)
    await heard.until(1)
    wire.notifies = False
    for number in range(2, 5):
        await publish(first, "s", number)
        await heard.until(number)
        assert second.health() == "ok"  # it relies on its wake-ups, and polls once a second nevertheless
    await close(first, "s")
    await heard.until("closed")
    assert heard.offsets == list(range(heard.offsets[0], 5))


async def test_a_gateway_rests_once_its_wake_ups_arrive_again(
    postgres: PostgresServer, address: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = await stack.enter_async_context(wire_to(postgres.port))
    with monkeypatch.context() as patch:
        patch.setattr(wakeups, "_TEST_AGAIN_SECONDS", 0.05)
        engine = await opened(stack, wire.address(address))
        wire.notifies = False
        async with asyncio.timeout(60):
            while engine.health() == "ok":
                await asyncio.sleep(0.01)
    wire.notifies = True
    async with asyncio.timeout(60):
        while engine.health() != "ok":
            await asyncio.sleep(0.01)
    before = wire.notifications
    await asyncio.sleep(1)
    assert wire.notifications - before < 10, "it tests at most a few times more whether they arrive"


async def test_readers_that_vanish_together_open_no_connections(
    postgres: PostgresServer, address: str, stack: AsyncExitStack
) -> None:
    wire = await stack.enter_async_context(wire_to(postgres.port))
    engine = await opened(stack, wire.address(address))
    await publish(engine, "s", *("x" * 100 for _ in range(200)))
    watching = await stack.enter_async_context(connection_to(postgres.address()))
    counts = list[int]()
    for _ in range(5):
        reading = [asyncio.ensure_future(engine.read("s", 0, before=1 << 40, limit=200)) for _ in range(200)]
        await asyncio.sleep(0.02)
        for read in reading:
            read.cancel()
        counts.append(
            await watching.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'",
                address.rsplit("/", 1)[1],
            )
        )
        ended = await asyncio.gather(*reading, return_exceptions=True)
        assert any(isinstance(one, asyncio.CancelledError) for one in ended)
    assert 0 < max(counts) <= MOST_CONNECTIONS
    assert wire.opened <= MOST_CONNECTIONS
    assert len((await engine.read("s", 0, before=1 << 40, limit=200)).events) > 0


async def test_gateways_work_in_a_database_whose_transactions_are_serializable(
    postgres: PostgresServer, address: str, stack: AsyncExitStack
) -> None:
    database = address.rsplit("/", 1)[1]
    await postgres.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    engines = [await opened(stack, address) for _ in range(3)]
    answers = await asyncio.gather(
        *(
            publish(engine, "s", n, publisher=f"p{at}", sequence=n)
            for n in range(20)
            for at, engine in enumerate(engines)
        )
    )
    assert all(isinstance(answer, Appended) for answer in answers)
    log = await everything(engines[0], "s")
    assert [event.offset for event in log] == list(range(60))
    assert sorted(data_of(event) for event in log) == sorted(n for n in range(20) for _ in range(3))
    for number in range(20):
        for engine in engines:
            record = await engine.get_record("r")
            await engine.put_record("r", str(number).encode(), revision=record.revision if record is not None else 0)
    await engines[1].trim("s", 30, epoch=answers[0].epoch)
    assert (await everything(engines[2], "s"))[0].offset == 30
    assert await engines[2].delete_session("s")
    async with asyncio.timeout(60):
        while any(engine.erasure_pending() for engine in engines):
            await asyncio.sleep(0.05)
