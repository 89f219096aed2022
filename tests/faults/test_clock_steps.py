"""The wall clock of a gateway is set while it runs, forwards and back: streams end with their tokens, and times are found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.feeds import feed
from tests.gateways import GatewayProcess
from tests.publishers import line
from tests.support import Served, Stream
from tests.tokens import SECRET, bearer
from wakeline.events import timestamp

HOUR = 3600
EVENTS = "/v1/sessions/s/events"


class Clock:
    """The wall clock of one process, as far as it is off."""

    def __init__(self, path: Path, gateway: GatewayProcess) -> None:
        self._path = path
        self._gateway = gateway

    async def set(self, off: str) -> None:
        """Set it, and wait until the gateway has noticed."""
        seen = self._noticed()
        self._path.with_suffix(".new").write_text(off)
        self._path.with_suffix(".new").replace(self._path)
        async with asyncio.timeout(60):
            while self._noticed() == seen:
                await asyncio.sleep(0.05)

    def _noticed(self) -> int:
        return self._gateway.log.read_text().count("the wall clock was set")


@asynccontextmanager
async def clocked(tmp_path: Path) -> AsyncIterator[tuple[Served, Clock]]:
    """A gateway that asks for tokens, and its clock."""
    off = tmp_path / "off"
    off.write_text("+0")
    environment = {
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # libfaketime reads the file without a lock: seldom, so that no two threads read it at once.
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_TIMESTAMP_FILE": str(off),
        "WAKELINE_DURABILITY": "process",
        "WAKELINE_TOKEN_SECRET": SECRET,
    }
    # What the program is told by FAKETIME goes before the file.
    prefix = ("faketime", "-f", "+0", "env", "-u", "FAKETIME")
    gateway = GatewayProcess(tmp_path / "data", prefix=prefix, environment=environment)
    try:
        await gateway.start()
        async with Served(gateway.url) as served:
            yield served, Clock(off, gateway)
    finally:
        await gateway.kill()


async def connections(served: Served, **headers: str) -> float:
    async with served.http.get("/metrics", headers=headers) as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("wakeline_connections_open "))


async def publish(served: Served, data: int, **claims: float) -> None:
    status, _ = await served.call(
        "POST", EVENTS, json={"events": [{"topic": "t", "data": data}]}, headers=bearer(**claims)
    )
    assert status == 200


async def test_everything_that_is_open_ends_with_its_token_when_the_clock_is_set_ahead(tmp_path: Path) -> None:
    short, long = bearer(exp=time.time() + HOUR), bearer(exp=time.time() + 3 * HOUR)
    async with clocked(tmp_path) as (served, clock), AsyncExitStack() as stack:
        assert (await served.call("PUT", "/v1/stream/s", headers=long))[0] == 201
        stays = await served.stream("s", **long)
        streams = [await served.stream("s", **short)]
        for path in ("/v1/feed?session=s", "/v1/stream/s?offset=-1&live=sse"):
            answer = await served.http.get(path, headers={"Accept": "text/event-stream", **short})
            assert answer.status == 200, await answer.text()
            streams.append(Stream(answer))
            stack.callback(answer.close)
        devices = await stack.enter_async_context(feed(served, headers=short))
        await devices.subscribe("s")
        publisher = await stack.enter_async_context(line(served, headers=short))
        polls = [
            asyncio.create_task(served.call("GET", path, headers=short))
            for path in (f"{EVENTS}?from=now&wait=60", "/v1/stream/s?offset=now&live=long-poll")
        ]
        async with asyncio.timeout(60):
            while await connections(served, **long) < 9:  # the eight, and the one that asks
                await asyncio.sleep(0.02)
        await clock.set("+2h")
        async with asyncio.timeout(30):  # the polls alone would wait longer
            for stream in streams:
                while await stream.lines():
                    pass
            assert await publisher.closed() == 4401
            while not devices.socket.closed:
                await devices.socket.receive()
            assert devices.socket.close_code == 4401
            # One that is read after the step is refused at once.
            for (status, _), ended in zip(await asyncio.gather(*polls), (200, 204), strict=True):
                assert status in (ended, 401)
        await publish(served, 1, exp=time.time() + 3 * HOUR)
        assert (await stays.next())["data"] == 1


async def test_a_stream_lasts_as_long_as_its_token_when_the_clock_is_set_back(tmp_path: Path) -> None:
    async with clocked(tmp_path) as (served, clock):
        exp = time.time() + 20
        await publish(served, 1)
        stream = await served.stream("s", **bearer(exp=exp))
        async with feed(served, headers=bearer(exp=exp)) as devices:
            await devices.subscribe("s")
            await clock.set("-1h")
            await asyncio.sleep(max(0, exp + 0.5 - time.time()))
            await publish(served, 2)
            assert [event["data"] for event in await stream.take(2)] == [1, 2]
            assert [event["data"] for event in await devices.events(2)] == [1, 2]
            await clock.set("+0")
            assert await stream.rest() == []


async def test_a_time_is_found_whichever_way_the_clock_was_set(tmp_path: Path) -> None:
    async with clocked(tmp_path) as (served, clock):
        for number, off in enumerate(("+0", "+2h", "-2h")):
            if number:
                await clock.set(off)
            for data in (2 * number, 2 * number + 1):
                await publish(served, data, exp=time.time() + 4 * HOUR)
        now = time.time()
        for after, first in ((-3, 0), (-1, 0), (0.5, 2), (1.5, 2), (3, 6)):
            moment = timestamp(datetime.fromtimestamp(now + after * HOUR, UTC))
            status, page = await served.call("GET", f"{EVENTS}?from=time:{moment}", headers=bearer(exp=now + 4 * HOUR))
            assert (status, [event["data"] for event in page["events"]]) == (200, list(range(first, 6))), after
