"""How late events reach a reader, and what reading costs the server: ours and the official library, side by side.

    python -m benchmarks.streams            # some 8 minutes, on a dev server of its own

Both libraries are measured in the same minutes on the same server, taking turns after every few events, each with its
own host, publisher and reader. Late is a reader by what lies between `publish` and the iterator's next item.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.contrib import workflow_streams as official
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from tests.temporal.streams_support import start
from tests.temporal.streams_workflows import Hub, OfficialHub

from wakeline import streams
from wakeline.cli.processes import free_port

# What a reader calls; the publisher's and the worker's own calls have other names.
READING = ["QueryWorkflow", "GetWorkflowExecutionHistory", "PollWorkflowExecutionHistory", "UpdateWorkflowExecution"]
TURN = 20


@dataclass
class Side:
    """One library: its host, its publisher, its readers, and how late they were."""

    name: str
    publisher: Any
    make_reader: Callable[[Client], AsyncIterator[Any]]
    delays: list[float] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def read(self, client: Client) -> None:
        async def follow() -> None:
            async for item in self.make_reader(client):
                self.delays.append(time.monotonic() - item.data)

        self.tasks.append(asyncio.create_task(follow()))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()


def percentiles(delays: list[float]) -> str:
    ordered = sorted(delays)
    parts = [ordered[min(len(ordered) * part // 100, len(ordered) - 1)] * 1000 for part in (50, 95, 99)]
    return f"n {len(ordered):6d}   p50 {parts[0]:7.1f}   p95 {parts[1]:7.1f}   p99 {parts[2]:7.1f} ms"


@asynccontextmanager
async def sides(
    client: Client, *, interval: float = 2.0, cooldown: float | None = None, only_ours: bool = False
) -> AsyncIterator[list[Side]]:
    """Both libraries, each with a workflow of its own and the publisher entered."""
    options = {} if cooldown is None else {"poll_cooldown": timedelta(seconds=cooldown)}
    made, handles = [], []
    for name, library, host in (("ours", streams, Hub), ("official", official, OfficialHub))[: 1 if only_ours else 2]:
        handle = await start(client, "benchmark", host)

        def reader(client: Client, library: Any = library, id: str = handle.id) -> AsyncIterator[Any]:
            items: AsyncIterator[Any] = library.WorkflowStreamClient.create(client, id).subscribe("n", **options)
            return items

        publisher: Any = library.WorkflowStreamClient
        made.append(Side(name, publisher.create(client, handle.id, batch_interval=timedelta(seconds=interval)), reader))
        handles.append(handle)
    for side in made:
        await side.publisher.__aenter__()
    try:
        yield made
    finally:
        for side in made:
            await side.publisher.__aexit__(None, None, None)
            await side.stop()
        for handle in handles:
            await handle.terminate()


async def late(
    client: Client, title: str, *, count: int, gap: float, force: bool, turn: int = TURN, **options: Any
) -> None:
    """One reader a side: publish at a pace, `turn` events to one, then to the other."""
    async with sides(client, **options) as both:
        for side in both:
            side.read(client)
        await asyncio.sleep(1.5)
        for _ in range(count // turn):
            for side in both:
                for _ in range(turn):
                    side.publisher.topic("n").publish(time.monotonic(), force_flush=force)
                    await asyncio.sleep(gap)
        for side in both:
            await side.publisher.flush()
        await asyncio.sleep(1.5)
        for side in both:
            print(f"{title:46s} {side.name:9s} {percentiles(side.delays)}", flush=True)


async def crowd(client: Client, title: str, *, readers: int, clients: int) -> None:
    """Many readers of ours at 20 forced events a second."""
    async with sides(client, only_ours=True) as (ours,):
        own = [Client(client.service_client, namespace=client.namespace) for _ in range(clients)]
        for index in range(readers):
            ours.read(own[index % clients])
        await asyncio.sleep(3)
        for _ in range(200):
            ours.publisher.topic("n").publish(time.monotonic(), force_flush=True)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(120):
            while len(ours.delays) < 200 * readers:  # noqa: ASYNC110  it watches from outside
                await asyncio.sleep(0.05)
        print(f"{title:46s} {'ours':9s} {percentiles(ours.delays)}", flush=True)


def requests(port: int) -> dict[str, float]:
    """How many calls the server has had of each of a reader's kinds."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    counted = dict.fromkeys(READING, 0.0)
    for line in text.splitlines():
        found = re.match(r'service_requests\{.*operation="(\w+)".*service_name="frontend".*\} (\S+)', line)
        if found and found[1] in counted:
            counted[found[1]] += float(found[2])
    return counted


async def cost(client: Client, port: int, title: str, *, events_a_second: float, seconds: float = 20) -> None:
    """Calls a second that one reader of ours makes."""
    async with sides(client, only_ours=True, interval=0.2) as (ours,):
        ours.read(client)
        # Long enough for the silence to be one.
        await asyncio.sleep(15 if not events_a_second else 2)
        before = await asyncio.to_thread(requests, port)
        for _ in range(int(seconds * (events_a_second or 1))):
            if events_a_second:
                ours.publisher.topic("n").publish(time.monotonic(), force_flush=events_a_second < 5)
            await asyncio.sleep(1 / (events_a_second or 1))
        after = await asyncio.to_thread(requests, port)
        told = ", ".join(f"{kind} {(after[kind] - before[kind]) / seconds:.2f}/s" for kind in READING)
        print(f"{title:46s} {told}", flush=True)


async def main(arguments: argparse.Namespace) -> None:
    beside = Path(sys.executable).with_name("temporal")
    port = free_port()
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(beside) if beside.exists() else shutil.which("temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=["--metrics-port", str(port)],
    ) as environment:
        client = environment.client
        async with Worker(client, task_queue="benchmark", workflows=[Hub, OfficialHub]):
            many = arguments.events
            if "late" in arguments.parts:
                await late(client, "forced, one every 0.5 s", count=many, gap=0.25, force=True, turn=1)
                await late(client, "forced, one every 50 ms", count=2 * many, gap=0.05, force=True)
                await late(
                    client, "forced, one every 50 ms, cooldown 0", count=2 * many, gap=0.05, force=True, cooldown=0
                )
                await late(client, "20 a second, batches of 0.2 s", count=2 * many, gap=0.05, force=False, interval=0.2)
                await late(client, "20 a second, all defaults", count=2 * many, gap=0.05, force=False, turn=2 * many)
            if "cost" in arguments.parts:
                await cost(client, port, "one reader, 20 a second in batches of 0.2 s", events_a_second=20)
                await cost(client, port, "one reader, one forced a second", events_a_second=1)
                await cost(client, port, "one reader, silence", events_a_second=0, seconds=40)
            if "crowd" in arguments.parts:
                await crowd(client, "200 readers on one client", readers=200, clients=1)
                await crowd(client, "50 readers, each with its own client", readers=50, clients=50)
                await crowd(client, "200 readers, each with its own client", readers=200, clients=200)
            # Queries that were sent when their reader left run to their end.
            await asyncio.sleep(3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["late", "cost", "crowd"], help="late, cost, crowd")
    parser.add_argument("--events", type=int, default=200, help="of each library, at least")
    asyncio.run(main(parser.parse_args()))
