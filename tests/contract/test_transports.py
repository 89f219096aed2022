"""One session over every transport, each connection cut at a random byte: every event once, in order, byte for byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.connecting import connecting
from tests.contract.conftest import ENGINES, remove_store, start_servers
from tests.contract.transports import CutError, DurablePoll, DurableSse, FeedSse, LongPoll, Reader, Sse, WebSocket, Wire
from tests.soak import dice, times
from tests.support import Served
from tests.watchdog import loop_is_never_held
from wakeline.background import cancel_all
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

SESSION = "order/é 1"
CUTS = times(40, 120)
TOPICS = ("delta", "status")


@pytest.fixture(params=["memory", "nats", "nats_of_three", "postgres", "sqlite"])
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    start_servers(request.param, request)
    settings = Settings(port=0, no_auth=True, leave_within=0)
    with loop_is_never_held():
        async with gateway(settings, engine=ENGINES[request.param](tmp_path)) as url, Served(url) as served:
            yield served
    await remove_store(request.param, tmp_path)


@pytest.fixture
def cuts(request: pytest.FixtureRequest) -> int:
    """How often each reader is cut: the transports are the same on all engines, so that most cuts are on one of them."""
    on_sqlite = request.node.callspec.params["served"] == "sqlite"
    return CUTS if on_sqlite else CUTS // 4


class Publishing:
    """Publishes for as long as somebody reads: what is cut is now a replay, now live, now the seam between them."""

    def __init__(self, served: Served, chance: random.Random) -> None:
        self._served = served
        self._chance = chance
        self.enough = asyncio.Event()

    async def run(self) -> int:
        """Publish until it is enough; gives the number of events."""
        count = 0
        await self._served.publish("other", {"topic": "t", "data": 0})
        while not self.enough.is_set() or count == 0:
            batch = [self._event(count + n) for n in range(self._chance.choice((1, 1, 2, 20)))]
            await self._served.publish(SESSION, *batch)
            await self._served.publish("other", {"topic": "t", "data": count})
            count += len(batch)
            await asyncio.sleep(self._chance.choice((0.001, 0.01, 0.03)))
        return count

    def _event(self, number: int) -> dict[str, object]:
        text = self._chance.choice(("", "x" * 40, "é日本\n\r\u2028", '"\\', "y" * 700))
        return {"topic": self._chance.choice(TOPICS), "data": {"n": number, "text": text}}


async def cut_and_read(url: str, reader: Reader, chance: random.Random, cuts: int) -> None:
    """Read with that many cuts, most of them soon after a connection began."""
    host, port = url.removeprefix("http://").split(":")
    for _ in range(cuts):
        budget = chance.choice((chance.randint(0, 400), chance.randint(0, 3000), chance.randint(0, 60_000)))
        async with connecting(host, port) as ends:
            with suppress(CutError, TimeoutError):
                async with asyncio.timeout(chance.choice((0.005, 0.02, 0.2))):
                    await reader.read(Wire(*ends, budget))


async def read_to(url: str, reader: Reader, count: int) -> None:
    """Read on, without cuts, until so many events have come."""
    host, port = url.removeprefix("http://").split(":")
    async with connecting(host, port) as ends:
        reading = asyncio.ensure_future(reader.read(Wire(*ends, 1 << 40)))
        try:
            async with asyncio.timeout(60):
                while len(reader.events) < count and not reading.done():
                    await asyncio.sleep(0.01)
        finally:
            await cancel_all(reading)


@pytest.mark.parametrize("kind", [Sse, LongPoll, FeedSse, WebSocket, DurablePoll, DurableSse])
async def test_every_event_once_however_often_it_is_cut(served: Served, kind: type[Reader], cuts: int) -> None:
    chance = dice(0)
    publishing = Publishing(served, chance)
    publisher = asyncio.ensure_future(publishing.run())
    while not (await served.call("GET", "/v1/sessions"))[1]["sessions"][1:]:
        await asyncio.sleep(0.01)
    # Two devices at once: the same bytes for both, whatever each of them went through.
    readers = [kind(SESSION), kind(SESSION)]
    await asyncio.gather(*[cut_and_read(served.url, reader, chance, cuts // 2) for reader in readers])
    publishing.enough.set()
    count = await publisher
    expected = Sse(SESSION)
    await read_to(served.url, expected, count)
    assert len(expected.events) == count
    for reader in readers:
        await read_to(served.url, reader, count)
        assert reader.events == expected.events
