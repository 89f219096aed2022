"""Streams that end by themselves: to the moment, for a commit now and then, and never too early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.clocks import Clock
from tests.durable import CLOSED, JSON, Durable
from tests.support import Served, publish
from wakeline.gateway.app import gateway
from wakeline.gateway.log import Engine, NewSession
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import SessionConfig, encode_config
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports.durable_streams.headers import Lifetime
from wakeline.gateway.transports.durable_streams.lifetimes import Lifetimes
from wakeline.gateway.transports.durable_streams.stream import Stream


class Counted(MemoryEngine):
    """Counts how often a deadline is written."""

    written = 0

    async def configure(self, session: str, **how: Any) -> None:
        self.written += 1
        await super().configure(session, **how)


@pytest.fixture
async def engine() -> AsyncIterator[Counted]:
    engine = Counted()
    await engine.open()
    yield engine
    await engine.close()


async def made(engine: Engine, lifetimes: Lifetimes, **how: Any) -> None:
    lifetime = Lifetime(**how)
    its = SessionConfig(content_type="application/json", ttl=lifetime.ttl, expires_at=lifetime.expires_at)
    deadline = lifetimes.first_deadline(lifetime)
    await engine.create_session(NewSession("s", config=encode_config(its), deadline=deadline))


async def now(engine: Engine) -> Stream:
    state = await engine.state("s")
    assert state is not None
    return Stream.of(state)


async def test_a_stream_in_use_costs_a_write_in_a_tenth_of_its_time(engine: Counted) -> None:
    clock = Clock(1_800_000_000.0)
    lifetimes = Lifetimes(engine, clock)
    await made(engine, lifetimes, ttl=1000)
    for _ in range(10_000):
        clock.now += 1
        stream = await now(engine)
        assert not lifetimes.over(stream)
        await lifetimes.use(stream)
        deadline = (await now(engine)).state.deadline
        assert deadline is not None
        assert deadline >= clock.now + 1000
    assert engine.written <= 101
    clock.now += 999
    assert not lifetimes.over(await now(engine))
    clock.now += 1
    assert lifetimes.over(await now(engine))


async def test_after_a_restart_a_stream_never_ends_too_early(engine: Counted) -> None:
    clock = Clock(1_800_000_000.0)
    before = Lifetimes(engine, clock)
    await made(engine, before, ttl=1000)
    clock.now += 50
    await before.use(await now(engine))
    clock.now += 999
    after = Lifetimes(engine, clock)
    assert not after.over(await now(engine))
    clock.now += 101
    assert after.over(await now(engine))


async def test_a_use_at_another_gateway_keeps_a_stream(engine: Counted) -> None:
    engine.shared = True
    clock = Clock(1_800_000_000.0)
    here, elsewhere = Lifetimes(engine, clock), Lifetimes(engine, clock)
    await made(engine, here, ttl=1000)
    await here.use(await now(engine))
    clock.now += 50
    await elsewhere.use(await now(engine))  # which moves no deadline
    clock.now += 999
    assert not here.over(await now(engine))
    clock.now += 51
    assert here.over(await now(engine))


async def test_a_write_by_anybody_renews(engine: Counted) -> None:
    clock = Clock(1_800_000_000.0)
    lifetimes = Lifetimes(engine, clock)
    await made(engine, lifetimes, ttl=1000)
    for restarted in (lifetimes, Lifetimes(engine, clock)):
        clock.now += 999
        await publish(engine, "s", 1)
        await asyncio.sleep(0.01)
        clock.now += 900
        assert not restarted.over(await now(engine))
        clock.now += 101
        assert restarted.over(await now(engine))


async def test_sessions_without_a_time_to_live_cost_nothing(engine: Counted) -> None:
    lifetimes = Lifetimes(engine)
    for _ in range(100):
        await publish(engine, "other", 1)
    await asyncio.sleep(0.01)
    assert engine.written == 0
    assert len(lifetimes) == 0


async def test_a_moment_is_not_moved(engine: Counted) -> None:
    clock = Clock(1_800_000_000.0)
    lifetimes = Lifetimes(engine, clock)
    await made(engine, lifetimes, expires_at=datetime.fromtimestamp(clock.now + 100, UTC))
    clock.now += 99
    await lifetimes.use(await now(engine))
    assert not lifetimes.over(await now(engine))
    clock.now += 1
    assert lifetimes.over(await now(engine))
    assert engine.written == 0


async def test_what_was_deleted_is_forgotten(engine: Counted) -> None:
    lifetimes = Lifetimes(engine)
    await made(engine, lifetimes, ttl=1000)
    await lifetimes.use(await now(engine))
    assert len(lifetimes) == 1
    await engine.delete_session("s")
    assert len(lifetimes) == 0


async def test_a_live_reader_keeps_a_stream(served: Served) -> None:
    stream = Durable(served)
    await stream.put(JSON, [1], **{"Stream-TTL": "5"})
    live = await stream.live()
    await live.data()
    await asyncio.sleep(7)
    assert (await stream.head()).status == 200
    live.close()
    async with asyncio.timeout(60):
        while (await stream.head()).status == 200:
            await asyncio.sleep(0.1)


async def test_an_ended_stream_is_gone_at_once_and_its_name_is_free(served: Served) -> None:
    stream = Durable(served)
    first = await stream.put(JSON, [1], **{"Stream-TTL": "5"})
    assert (await stream.post([2], **CLOSED)).status == 204
    await asyncio.sleep(5.05)
    assert (await stream.post([3])).error == (404, "session_not_found")
    assert (await stream.put(JSON, [4])).status == 201
    assert (await stream.get()).json == [4]
    assert (await stream.get(f"?offset={first.next}")).error == (410, "epoch_changed")


async def test_a_stream_that_nobody_asks_for_is_removed(served: Served) -> None:
    stream = Durable(served)
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    await stream.put(JSON, [1], **{"Stream-Expires-At": soon})
    await Durable(served, "t").put(JSON, [1], **{"Stream-TTL": "1"})
    async with asyncio.timeout(60):
        while (await served.call("GET", "/v1/sessions"))[1]["sessions"]:
            await asyncio.sleep(0.1)


async def test_lifetimes_are_told_and_outlive_the_gateway(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), port=0, no_auth=True)
    moment = "2099-01-01T01:00:00+01:00"
    async with gateway(settings) as url, Served(url) as served:
        await Durable(served, "a").put(JSON, **{"Stream-TTL": "3600"})
        await Durable(served, "b").put(JSON, **{"Stream-Expires-At": moment})
    async with gateway(settings) as url, Served(url) as served:
        assert (await Durable(served, "a").head()).headers["Stream-TTL"] == "3600"
        told = (await Durable(served, "b").head()).headers["Stream-Expires-At"]
        assert datetime.fromisoformat(told) == datetime.fromisoformat(moment)
        assert (await Durable(served, "a").put(JSON, **{"Stream-TTL": "3600"})).status == 200
        assert (await Durable(served, "b").put(JSON, **{"Stream-Expires-At": "2099-01-01T00:00:00Z"})).status == 200
