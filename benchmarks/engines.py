"""`python -m benchmarks.engines`: durable appends a second on each engine, beside each other.

The engine alone, as a gateway has it, in one process: publishers append an event of 200 bytes, each the next when its last is
durable, so that as many are in flight as there are publishers. SQLite has `durability = "full"`, PostgreSQL `fsync = on` and
`synchronous_commit = on`, NATS `sync_interval: always`, on one node and (`nats-3`) on three.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

from tests.nats import nats_cluster, nats_server
from tests.postgres import postgres_server

from benchmarks.group_commit import PAD
from wakeline.events import NewEvent, compose, timestamp
from wakeline.gateway.log import Append, Engine, Publication
from wakeline.gateway.settings import Settings
from wakeline.gateway.stores import engine_of

ROWS = [(1, 1), (50, 1), (500, 1), (50, 1000), (500, 1000)]
"""Publishers, and the sessions among which they are divided: each appends to its own ones in turn."""


@asynccontextmanager
async def store(name: str) -> AsyncIterator[Settings]:
    """The settings of a store that exists as long as the block lasts."""
    if name == "sqlite":
        folder = tempfile.mkdtemp(prefix="wakeline-bench-")
        try:
            yield Settings(engine="sqlite", data=f"{folder}/data")
        finally:
            shutil.rmtree(folder)
        return
    if name.startswith("nats"):
        # On disk, like the others; a monitored server, as a gateway wants it.
        with nats_cluster(disk=True) if name == "nats-3" else nats_server(disk=True) as servers:
            yield Settings(engine=servers.address(shards="16"))
        return
    with postgres_server(fsync="on", full_page_writes="on", autovacuum="on", shared_buffers="256MB") as server:
        yield Settings(engine=await server.database())


async def measure(engine: Engine, publishers: int, sessions: int, seconds: float, name: str) -> dict[str, Any]:
    """Append for some seconds; appends a second, and how long each took."""
    delays: list[float] = []
    ends = time.monotonic() + seconds

    def event() -> NewEvent:
        return compose("delta", json.dumps({"text": PAD.decode()}).encode(), time=timestamp())

    async def publish(number: int) -> None:
        mine = [f"{name}-{at}" for at in range(number % sessions, sessions, publishers)]
        sequences = dict.fromkeys(mine, 0)
        for session in cycle(mine):
            if (began := time.monotonic()) >= ends:
                return
            publication = Publication(f"p{number}", 1, sequences[session])
            (outcome,) = await engine.append_each([Append(session, (event(),), publication)])
            if isinstance(outcome, BaseException):
                raise outcome
            sequences[session] += 1
            delays.append(time.monotonic() - began)

    before = sum(os.times()[:2])
    began = time.monotonic()
    await asyncio.gather(*(publish(number) for number in range(publishers)))
    took, cpu = time.monotonic() - began, sum(os.times()[:2]) - before
    delays.sort()
    return {
        "publishers": publishers,
        "sessions": sessions,
        "appends_per_s": round(len(delays) / took),
        "p50_ms": round(1000 * delays[len(delays) // 2], 2),
        "p99_ms": round(1000 * delays[len(delays) * 99 // 100], 2),
        "cpu_us": round(1e6 * cpu / len(delays), 1),
    }


async def run(names: list[str], seconds: float) -> None:
    for publishers, sessions in ROWS:
        for name in names:
            async with store(name) as settings:
                engine = engine_of(settings)
                await engine.open()
                await measure(engine, publishers, sessions, min(1.0, seconds), "warm")
                row = await measure(engine, publishers, sessions, seconds, "session")
                await engine.close()
            print(json.dumps({"engine": name, **row}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["sqlite", "postgres", "nats", "nats-3"], help="the engines")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row")
    asked = parser.parse_args()
    asyncio.run(run(asked.only, asked.seconds))


if __name__ == "__main__":
    main()
