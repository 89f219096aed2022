"""`Nudger`: it tells, it waits for nothing, and whatever the gateway does, nobody who nudges notices."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.accepting import accepting
from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.conftest import Serve
from tests.unit.publisher.scripted import ScriptedGateway
from tests.upstream import RecordingUpstream, recording
from wakeline.errors import RequestInvalidError
from wakeline.publisher import Nudger, SessionPublisher

ENOUGH = 60  # seconds; no test is meant to come near it


def nudges(script: ScriptedGateway) -> list[str]:
    return [frame["workflow_id"] for frame in script.frames if frame["type"] == "nudge"]


async def until_nudged(script: ScriptedGateway, workflow_id: str) -> None:
    async with asyncio.timeout(ENOUGH):
        while workflow_id not in nudges(script):
            await asyncio.sleep(0.002)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> RecordingUpstream:
    return recording(monkeypatch)


async def test_the_gateway_is_told_with_the_namespace(upstream: RecordingUpstream, served: Served) -> None:
    async with Nudger(served.url) as nudger:
        nudger.nudge("order-1")
        await upstream.until_nudged("order-1")
    async with Nudger(served.url, namespace="shop") as nudger:
        nudger.nudge("ordnung/ä")
        await upstream.until_nudged("ordnung/ä")
    assert upstream.nudged == [("order-1", None), ("ordnung/ä", "shop")]


async def test_leaving_sends_what_waits_and_without_a_loop_it_is_the_same(
    upstream: RecordingUpstream, served: Served
) -> None:
    async with Nudger(served.url) as nudger:
        nudger.nudge("order-1")
    await upstream.until_nudged("order-1")

    def in_a_thread() -> None:
        with Nudger(served.url) as nudger:
            nudger.nudge("order-2")

    await asyncio.to_thread(in_a_thread)
    await upstream.until_nudged("order-2")


async def test_it_goes_over_the_publishers_connection_and_publishers_are_not_held_up(script: ScriptedGateway) -> None:
    async with Nudger(script.url) as nudger, SessionPublisher(script.url, session="s") as session:
        for number in range(100):
            await session.topic("t").publish(number)
            nudger.nudge(f"order-{number}")
            await asyncio.sleep(0)
        await until_nudged(script, "order-99")
    assert script.events() == list(range(100))
    assert script.connections == 1
    assert len(nudges(script)) == 100


async def test_many_of_one_workflow_are_as_good_as_one(script: ScriptedGateway) -> None:
    async with Nudger(script.url) as nudger:
        for _ in range(10_000):
            nudger.nudge("order-1")
        await until_nudged(script, "order-1")
        nudger.nudge("order-1")
        nudger.nudge("order-2")
        await until_nudged(script, "order-2")
    assert nudges(script) == ["order-1", "order-1", "order-2"]


async def test_threads_may_nudge(script: ScriptedGateway) -> None:
    async with Nudger(script.url) as nudger:

        def run(thread: int) -> None:
            for number in range(100):
                nudger.nudge(f"{thread}-{number}")

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        async with asyncio.timeout(ENOUGH):
            while any(thread.is_alive() for thread in threads):
                await asyncio.sleep(0.001)
        # The last of each thread waits or was sent: only the oldest make room.
        for number in range(8):
            await until_nudged(script, f"{number}-99")


async def test_before_and_after_it_does_nothing(script: ScriptedGateway) -> None:
    nudger = Nudger(script.url)
    nudger.nudge("early")
    async with nudger:
        pass
    nudger.nudge("late")
    await nudger.aclose()
    async with Nudger(script.url) as other:
        other.nudge("order-1")
        await until_nudged(script, "order-1")
    assert nudges(script) == ["order-1"]


def test_a_loop_that_has_ended_breaks_nothing() -> None:
    async def begin() -> Nudger:
        return await Nudger("http://127.0.0.1:1").__aenter__()

    nudger = asyncio.run(begin())
    nudger.nudge("order-1")
    nudger.nudge("order-1")


async def test_what_no_workflow_is_called_is_passed_over(script: ScriptedGateway) -> None:
    async with Nudger(script.url) as nudger:
        nudger.nudge("\ud800")
        nudger.nudge("order-1")
        await until_nudged(script, "order-1")
    assert nudges(script) == ["order-1"]


def test_a_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(RequestInvalidError, match="expected a URL"):
        Nudger("localhost:7777")


# The gateway is away, refuses, or says nothing.


async def test_while_the_gateway_is_away_nudges_are_dropped_and_that_is_logged_once(
    away: ScriptedGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wakeline.outages._FIRST_SECONDS", 0.1)
    with caplog.at_level(logging.WARNING, "wakeline.publisher"):
        async with Nudger(away.url) as nudger:
            nudger.nudge("lost")
            await until(lambda: bool(caplog.records))
            await away.start()
            await until(lambda: away.connections == 1)
            nudger.nudge("order-1")
            await until_nudged(away, "order-1")
    assert nudges(away) == ["order-1"]
    (record,) = caplog.records
    assert record.message.startswith(f"Reaching the gateway at {away.url} has failed for ")


async def test_a_gateway_that_is_away_is_left_at_once(away: ScriptedGateway) -> None:
    async with asyncio.timeout(ENOUGH):
        async with Nudger(away.url) as nudger:
            nudger.nudge("order-1")


async def test_it_goes_on_over_the_next_connection(script: ScriptedGateway) -> None:
    async with Nudger(script.url) as nudger:
        nudger.nudge("order-1")
        await until_nudged(script, "order-1")
        await script.cut()
        await until(lambda: script.connections == 2)
        nudger.nudge("order-2")
        await until_nudged(script, "order-2")
    assert nudges(script) == ["order-1", "order-2"]


async def test_a_token_that_is_refused_is_told_once_and_the_gateway_is_not_beleaguered(
    script: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    script.status = 403
    with caplog.at_level(logging.WARNING, "wakeline.publisher"):
        async with Nudger(script.url, "no good") as nudger:
            nudger.nudge("order-1")
            await until(lambda: bool(caplog.records))
            asked = len(script.tokens)
            for _ in range(30):
                nudger.nudge("order-1")
                await asyncio.sleep(0.01)
    assert len(script.tokens) == asked
    assert len(caplog.records) == 1


async def test_it_asks_again_some_time_after_a_refusal(
    script: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wakeline.publisher.nudger._ASK_AGAIN_SECONDS", 0.05)
    script.status = 403
    async with Nudger(script.url) as nudger:
        nudger.nudge("order-1")
        await until(lambda: bool(script.tokens))
        script.status = 101
        async with asyncio.timeout(ENOUGH):
            while "order-2" not in nudges(script):
                nudger.nudge("order-2")
                await asyncio.sleep(0.01)


async def test_nudges_over_the_limit_are_told_once_and_the_rest_goes_on(
    upstream: RecordingUpstream, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(token_secret=SECRET, publish_rate=1)
    with caplog.at_level(logging.WARNING, "wakeline.publisher"):
        async with Nudger(served.url, token()) as nudger:
            for number in range(20):
                nudger.nudge(f"order-{number}")
            await until(lambda: bool(caplog.records))
    assert 1 <= len(upstream.nudged) < 20
    assert [record.message for record in caplog.records] == [
        "the gateway refused a frame: too many events a second came from one caller"
    ]


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A server that takes connections and never says a word."""

    async def take(*_: object) -> None:
        await asyncio.Future()

    async with accepting(take) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_gateway_that_never_answers_holds_nobody_up() -> None:
    async with silent() as url, asyncio.timeout(ENOUGH):
        async with Nudger(url) as nudger:
            for number in range(100_000):
                nudger.nudge(f"order-{number}")
            await asyncio.sleep(0.01)
        assert len(nudger._waiting) == 0


async def test_a_gateway_that_reads_nothing_for_a_while_is_told_the_latest_of_each() -> None:
    """What waits meanwhile is one nudge for each workflow, however many there were."""
    told: list[str] = []
    reading = asyncio.Event()

    async def publish(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        request.transport.pause_reading()
        await reading.wait()
        request.transport.resume_reading()
        async for message in socket:
            told.extend(json.loads(line)["workflow_id"] for line in message.data.split("\n") if "nudge" in line)
        return socket

    app = web.Application()
    app.router.add_get("/v1/publish", publish)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    names = [f"order-{number}-{'x' * 900}" for number in range(100)]
    rounds = 500  # of 100 kB: far more than sockets hold
    async with Nudger(f"http://127.0.0.1:{runner.addresses[0][1]}") as nudger:
        for _ in range(rounds):
            for name in names:
                nudger.nudge(name)
            await asyncio.sleep(0.001)
        nudger.nudge("last")
        reading.set()
        await until(lambda: "last" in told)
    assert set(told) == {*names, "last"}
    assert len(told) < rounds * len(names) / 2
    await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(ENOUGH):
        while not condition():
            await asyncio.sleep(0.002)


async def test_publishers_go_on_where_nudges_are_refused(upstream: RecordingUpstream, serve: Serve) -> None:
    served = await serve(token_secret=SECRET, publish_rate=10)
    who = token()
    async with Nudger(served.url, who) as nudger, SessionPublisher(served.url, who, session="s") as session:
        for number in range(40):
            nudger.nudge(f"order-{number}")
        await session.topic("t").publish(1)
        await session.flush()
        assert session.acknowledged == 1
