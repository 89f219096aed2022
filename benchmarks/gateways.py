"""`python -m benchmarks.gateways`: whole gateways on PostgreSQL and NATS, beside one on SQLite.

`latency`: from a publisher at one gateway to devices at another one; on SQLite, where both are at the same gateway. `intake`: how
many durable events a second publishers bring into one gateway over WebSockets. `processes`: deliveries with 1, 2 and 4 gateway
processes on one port. `stored`: the CPU time of a delivery with 1,000, 10,000 and 100,000 sessions in the store. `replay`: 1,000
devices come back at once, each 1,000 events behind.

Gateways have one core, publishers and devices the other; in `processes` all of them share both.
The servers of the stores may use both, and write to the disk before they answer; `nats-3` is a cluster of three nodes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks import storm
from benchmarks.engines import store
from benchmarks.processes import ALL_CORES
from benchmarks.publishing import TEXT, Row, Send, Wakeline, gateway, intake, latency
from wakeline.cli.processes import free_port
from wakeline.events import NewEvent, compose, timestamp
from wakeline.gateway.log import Append
from wakeline.gateway.settings import Settings
from wakeline.gateway.stores import engine_of

STORES = ["sqlite", "postgres", "nats", "nats-3"]
ROWS = "1x1 1x100 1x1000 200x1"
PARTS = ["latency", "intake", "processes", "stored", "replay"]
PROCESSES = [1, 2, 4]
STORED = [1_000, 10_000, 100_000]
BUSY = Row(200, 10, 50)
PACED = Row(1, 1000, 10)
_TOGETHER = 1_000


@asynccontextmanager
async def stored_in(name: str, sessions: int = 0) -> AsyncIterator[None]:
    """Have every gateway that is started use a store of its own, which has some sessions already."""
    async with store(name) as settings:
        os.environ |= {"WAKELINE_ENGINE": settings.engine, "WAKELINE_DATA": settings.data}
        try:
            await fill(settings, sessions)
            yield
        finally:
            del os.environ["WAKELINE_ENGINE"], os.environ["WAKELINE_DATA"]


async def fill(settings: Settings, sessions: int) -> None:
    """Append an event to each of so many sessions."""
    engine = engine_of(settings)
    await engine.open()
    for first in range(0, sessions, _TOGETHER):
        event: NewEvent = compose("delta", f'{{"text":"{TEXT}"}}'.encode(), time=timestamp())
        await engine.append_each([Append(f"stored-{first + n}", (event,)) for n in range(_TOGETHER)])
    await engine.close()


def across(name: str) -> type[Wakeline]:
    """Publishers at one gateway, devices at another one; on SQLite at the same."""

    class Across(Wakeline):
        title = f"{name}, {'the same' if name == 'sqlite' else 'another'} gateway"

        async def start(self) -> list[Send]:
            sends = await super().start()
            if name != "sqlite":
                gateway(self)  # the devices connect to the gateway that was started last
            return sends

    return Across


def processes(name: str, count: int) -> type[Wakeline]:
    """Some gateways on one port."""

    class Several(Wakeline):
        title = f"{name}, {count} processes"

        def serve(self) -> None:
            arguments = ["--no-auth", "--port", str(free_port()), "--processes", str(count)]
            self.server([sys.executable, "-m", "wakeline", "serve", *arguments], set(ALL_CORES))

    return Several


def titled(text: str) -> type[Wakeline]:
    class Titled(Wakeline):
        title = text

    return Titled


async def measure(part: str, name: str, rows: list[Row], seconds: float) -> None:
    """Measure one part on one store."""
    match part:
        case "latency":
            for row in rows:
                async with stored_in(name):
                    await latency(across(name), row, seconds)
        case "intake":
            for publishers, events in ((50, 20_000), (1, 200_000)):
                async with stored_in(name):
                    print(f"{name}, ", end="")
                    await intake(publishers, events)
        case "processes" if name != "sqlite":
            for count in PROCESSES:
                async with stored_in(name):
                    await latency(processes(name, count), BUSY, seconds)
        case "stored":
            for sessions in STORED:
                async with stored_in(name, sessions):
                    await latency(titled(f"{name}, {sessions:,} stored"), PACED, seconds)
        case "replay":
            async with stored_in(name):
                await asyncio.to_thread(storm.measure, "wakeline", 1_000, 1_000, name)


async def run(parts: list[str], names: list[str], rows: list[Row], seconds: float) -> None:
    for part in parts:
        print(f"{part}:", flush=True)
        for name in names:
            await measure(part, name, rows, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=STORES, default=STORES, help="the stores")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument("--seconds", type=float, default=8, help="for each row of latency")
    parser.add_argument("--rows", nargs="*", type=Row.parse, default=[Row.parse(row) for row in ROWS.split()])
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(run(asked.parts, asked.only, asked.rows, asked.seconds))


if __name__ == "__main__":
    main()
