"""Three gateways on one store, under load, while faults happen: nothing is lost, doubled or out of order.

The first gateway's way to the store can be cut silently, and the second one's clock is an hour ahead.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client

from tests.balancer import balancer
from tests.faults.crowd import Crowd
from tests.faults.ends import Ends
from tests.gateways import GatewayProcess
from tests.soak import SOAK
from tests.tokens import SECRET, bearer, token
from tests.ways import Way
from wakeline.client import SessionClient

GATEWAYS = 3
APPENDS = 0 if SOAK == 1 else 20_000 * SOAK
FROZEN_SECONDS = [3.0] if SOAK == 1 else [6.0, 30.0]
_DAY = 86_400

Fault = Callable[[], Awaitable[None]]


class Three:
    """Three gateways, and the faults that any store's may have.

    Args:
        gateways: The gateways; all may run at once.
        way: The first one's way to the store.
    """

    def __init__(self, gateways: Sequence[GatewayProcess], way: Way) -> None:
        self.gateways = gateways
        self.way = way
        self.chance = random.Random(23)
        self.kills = 0
        self.over = False
        self._busy: set[GatewayProcess] = set()

    @asynccontextmanager
    async def alone_with(self, gateway: GatewayProcess) -> AsyncIterator[GatewayProcess]:
        """Have no other fault of a gateway meanwhile."""
        while gateway in self._busy:
            await asyncio.sleep(0.02)
        self._busy.add(gateway)
        try:
            yield gateway
        finally:
            self._busy.discard(gateway)

    async def kill_a_gateway(self) -> None:
        """Kill one, and start it again as a supervisor does."""
        async with self.alone_with(self.chance.choice(self.gateways)) as gateway:
            await gateway.kill()
            self.kills += 1
            _forget_clock(gateway)
            await gateway.persist()

    async def freeze_a_gateway(self) -> None:
        """Stop one for longer than its lease: what it goes on with is what others have taken over."""
        async with self.alone_with(self.chance.choice(self.gateways)) as gateway:
            gateway.hold()
            await asyncio.sleep(self.chance.choice(FROZEN_SECONDS))
            gateway.go_on()

    async def part_a_gateway(self) -> None:
        """Let nothing pass between the first one and the store."""
        async with self.alone_with(self.gateways[0]):
            self.way.cut()
            await asyncio.sleep(self.chance.choice(FROZEN_SECONDS))
            self.way.mend()

    async def keep_killing(self) -> None:
        """Kill a gateway every two seconds, or when the one before is back, where a start takes longer."""
        while not self.over:
            await asyncio.gather(asyncio.sleep(2), self.kill_a_gateway())

    async def ready(self) -> None:
        """Return when every gateway answers."""
        for gateway in self.gateways:
            async with self.alone_with(gateway):
                await gateway.ready()


def _forget_clock(gateway: GatewayProcess) -> None:
    """Remove what libfaketime shares among processes, which one that is killed leaves."""
    assert gateway.process is not None
    for name in ("faketime_shm", "sem.faketime_sem"):
        Path(f"/dev/shm/{name}_{gateway.process.pid}").unlink(missing_ok=True)


@asynccontextmanager
async def three_on(addresses: Sequence[str], way: Way, directory: Path, temporal: Client) -> AsyncIterator[Three]:
    """Three gateways, each with its own address of the store, which must end in good order.

    Args:
        addresses: The first one is that of the way.
        way: The way of the first gateway.
        directory: Where their logs are.
        temporal: Temporal, whose port the way does not cut.
    """
    at = temporal.service_client.config.target_host
    # The program `faketime` would stay in between, and end without waiting for the gateway.
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    common = {
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "WAKELINE_LEASE": "2",
        "WAKELINE_LEAVE_WITHIN": "0",
        "WAKELINE_TOKEN_SECRET": SECRET,
    }
    places = [
        (addresses[0], way.address(at), way.prefix, way.host),
        (addresses[1], at, ("env", f"LD_PRELOAD={library}", "FAKETIME=+1h"), "127.0.0.1"),
        (addresses[2], at, (), "127.0.0.1"),
    ]
    gateways = [
        GatewayProcess(
            directory / f"{number}",
            prefix=prefix,
            host=host,
            environment={**common, "WAKELINE_ENGINE": address, "WAKELINE_TEMPORAL": reached},
        )
        for number, (address, reached, prefix, host) in enumerate(places)
    ]
    await asyncio.gather(*(gateway.start() for gateway in gateways))
    yield Three(gateways, way)
    ended = await asyncio.gather(*(gateway.stop() for gateway in gateways))
    assert ended == [0] * GATEWAYS


async def nothing_is_lost(three: Three, faults: Sequence[Fault], temporal: Client) -> int:
    """Publish, watch and end runs at all gateways while faults happen, and check what is there.

    In a soak the faults are repeated, and a gateway is killed every two seconds, until `APPENDS` events are
    acknowledged.

    Returns:
        How many events were acknowledged.
    """
    async with AsyncExitStack() as stack:
        before = await stack.enter_async_context(balancer([gateway.port for gateway in three.gateways[1:]]))
        urls = [before.url, *(gateway.url for gateway in three.gateways)]
        known = token(exp=time.time() + _DAY)
        clients = [
            await stack.enter_async_context(SessionClient(url, known, retry_timeout=timedelta(0))) for url in urls
        ]
        crowd, ends = Crowd(clients, known), Ends(temporal, urls, bearer(exp=time.time() + _DAY))
        await stack.enter_async_context(ends.worker())
        stack.push_async_callback(crowd.cancel)
        crowd.start()
        began = time.monotonic()
        killing = asyncio.create_task(three.keep_killing()) if SOAK > 1 else None
        done = 0
        while not done or crowd.events < APPENDS:
            ending = asyncio.create_task(ends.round())
            for fault in faults:
                await asyncio.sleep(three.chance.uniform(0.1, 0.5) if SOAK == 1 else 1.0)
                await fault()
                done += 1
            await ending
            print(f"{done} faults, {crowd.events:,} events in {time.monotonic() - began:.0f} s", flush=True)
        three.over = True
        if killing is not None:
            await killing
        await three.ready()
        await asyncio.sleep(0.5)
        took = time.monotonic() - began
        await crowd.stop()
        there = await crowd.check(clients[-1])
        await ends.check(clients[-1])
        report = {
            "seconds": round(took),
            "faults": done,
            "kills_of_gateways": three.kills,
            "batches_acknowledged": crowd.batches,
            "events_acknowledged": crowd.events,
            "events_there": there,
            "runs": len(ends.runs),
            "longest_without_an_append_s": round(crowd.longest, 2),
        }
        print(json.dumps(report))
        return crowd.events
