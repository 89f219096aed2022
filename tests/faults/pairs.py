"""Two gateways on one store under load, while something is killed: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from tests.faults.test_gateway_killed import SESSIONS, Load, check, until_seen, whole_log
from tests.gateways import GatewayProcess
from wakeline.client import SessionClient

Pair: TypeAlias = tuple[GatewayProcess, GatewayProcess]


@asynccontextmanager
async def gateways_on(engine: str, directory: Path) -> AsyncIterator[Pair]:
    """Two gateways on a store, which must end in good order."""
    environment = {"WAKELINE_ENGINE": engine, "WAKELINE_LEAVE_WITHIN": "0"}
    first, second = (GatewayProcess(directory / name, environment=environment) for name in ("a", "b"))
    await asyncio.gather(first.start(), second.start())
    yield first, second
    ended = await asyncio.gather(first.stop(), second.stop())
    assert list(ended) == [0, 0]


async def nothing_is_lost(pair: Pair, faults: Callable[[random.Random], Awaitable[None]]) -> int:
    """Publish at both gateways and watch at both while faults happen, and check what is there.

    Args:
        pair: The gateways.
        faults: Does the faults, and ends when both gateways work again.

    Returns:
        The number of events that were acknowledged.
    """
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(SessionClient(gateway.url, retry_timeout=timedelta(0))) for gateway in pair
        ]
        loads = [Load(client) for client in clients]
        publishers = [
            asyncio.ensure_future(publish(session, f"{publish.__name__}-{at}-{n}", random.Random(n)))
            for at, load in enumerate(loads)
            for session in SESSIONS
            for publish in (load.idempotent, load.plain)
            for n in range(2)
        ]
        devices = [asyncio.ensure_future(load.device(s, begin)) for load in loads for s in SESSIONS for begin in (0, 2)]
        await faults(random.Random(11))
        await asyncio.sleep(1)
        for load in loads:
            load.stopping = True
        await asyncio.gather(*publishers)
        logs = {session: await whole_log(clients[1], session) for session in SESSIONS}
        for load in loads:
            await until_seen(load, logs)
        for device in devices:
            device.cancel()
        await asyncio.gather(*devices)
    loads[0].seen += loads[1].seen
    for session, log in logs.items():
        loads[0].acknowledged[session] |= loads[1].acknowledged[session]
        loads[0].attempted[session] |= loads[1].attempted[session]
        check(session, log, loads[0])
    print(json.dumps({session: len(log) for session, log in logs.items()}))
    return sum(len(known) for known in loads[0].acknowledged.values())
