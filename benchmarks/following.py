"""What it takes to follow workflows: how late a device is, and what each open run costs Temporal.

    python -m benchmarks.following                          # some 10 minutes
    python -m benchmarks.following latency
    python -m benchmarks.following cost --runs 10000
    python -m benchmarks.following long --seconds 3600      # one run at 20 events a second, bridged whole

Temporal's dev server, a worker, a gateway and the device are each a process of their own. Calls to Temporal are counted by the
gateway, in `wakeline_temporal_calls_total`. Late is a device by what lies between `publish` in the workflow (or in the program
that publishes through Temporal) and the event's bytes being read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from tests.gateways import GatewayProcess

from benchmarks.following_workflows import Idle, Said, Speaker
from wakeline.cli.processes import temporal_program
from wakeline.streams import WorkflowStreamClient

QUEUE = "following"
_CALLS = re.compile(r'wakeline_temporal_calls_total\{call="(\w+)",outcome="(\w+)"\} ([\d.e+]+)')


def percentiles(delays: list[float]) -> str:
    ordered = sorted(delays)
    parts = [ordered[min(len(ordered) * part // 100, len(ordered) - 1)] * 1000 for part in (50, 95, 99)]
    return f"n {len(ordered):6d}   p50 {parts[0]:6.1f}   p95 {parts[1]:6.1f}   p99 {parts[2]:6.1f} ms"


@asynccontextmanager
async def temporal() -> AsyncIterator[Client]:
    """A dev server, and a worker in a process of its own."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=temporal_program(), dev_server_log_level="error"
    ) as environment:
        address = environment.client.service_client.config.target_host
        worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.following", "worker", address)
        try:
            yield environment.client
        finally:
            worker.kill()
            await worker.wait()


@asynccontextmanager
async def gateway(client: Client, **settings: Any) -> AsyncIterator[GatewayProcess]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {f"WAKELINE_{name.upper()}": str(value) for name, value in settings.items()}
        address = client.service_client.config.target_host
        process = GatewayProcess(Path(folder) / "data", "--temporal", address, environment=environment)
        await process.start()
        try:
            yield process
        finally:
            await process.stop()


async def calls(http: aiohttp.ClientSession) -> Counter[str]:
    async with http.get("/metrics") as answer:
        found: Counter[str] = Counter()
        for call, _, count in _CALLS.findall(await answer.text()):
            found[call] += int(float(count))
        return found


async def metric(http: aiohttp.ClientSession, name: str) -> float:
    async with http.get("/metrics") as answer:
        found = re.search(rf"^{name} ([\d.e+]+)$", await answer.text(), re.M)
        return float(found[1]) if found else 0.0


class Device:
    """Reads one session, and notes how late each event is."""

    def __init__(self, http: aiohttp.ClientSession, session: str) -> None:
        self._http = http
        self._session = session
        self.delays: list[float] = []
        self.numbers: list[int] = []
        self.closed: dict[str, Any] | None = None

    async def read(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        path = f"/v1/sessions/{self._session}/events?until=settled"
        async with self._http.get(path, headers={"Accept": "text/event-stream"}, timeout=timeout) as answer:
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                if event["topic"] == "n":
                    self.delays.append(time.monotonic() - event["data"]["at"])
                    self.numbers.append(event["data"]["number"])
                elif event["topic"] == "$run.closed":
                    self.closed = event["data"]


async def speak(client: Client, name: str, http: aiohttp.ClientSession, seconds: float, how: str) -> Device:
    """Twenty events a second from a workflow, told to it by signal, or published through Temporal in batches."""
    handle = await client.start_workflow(Speaker.run, Said(), id=name, task_queue=QUEUE)
    device = Device(http, name)
    reading = asyncio.create_task(device.read())
    latest = client.get_workflow_handle(name)
    stream = WorkflowStreamClient.create(client, name, batch_interval=timedelta(milliseconds=200))
    await asyncio.sleep(2)
    begun = time.monotonic()
    async with stream:
        for number in range(int(seconds * 20)):
            await asyncio.sleep(begun + number / 20 - time.monotonic())
            if how == "batches":
                stream.topic("n").publish({"number": number, "at": time.monotonic()})
                continue
            await latest.signal("say", number)
            if how == "nudged":
                await http.post("/v1/nudge", json={"workflow_id": handle.id})
            if number % 1200 == 0 and number:
                print(f"    {number} events, {percentiles(device.delays)}", flush=True)
    await latest.signal("close")
    await asyncio.wait_for(reading, 60)
    assert device.numbers == list(range(int(seconds * 20))), "an event is missing, twice or out of order"
    return device


async def latency(seconds: float) -> None:
    print("\nfrom a publish in the workflow to the device, 20 events a second")
    rows = [
        ("watched closely", "signals", {}),
        ("watched closely, and nudged", "nudged", {}),
        ("swept, and nudged", "nudged", {"close_watches": 0}),
    ]
    async with temporal() as client:
        for title, how, settings in rows:
            async with gateway(client, **settings) as process, aiohttp.ClientSession(process.url) as http:
                device = await speak(client, f"latency-{how}-{len(settings)}", http, seconds, how)
                print(f"  {title:30s} {percentiles(device.delays)}", flush=True)
        async with gateway(client) as process, aiohttp.ClientSession(process.url) as http:
            device = await speak(client, "latency-batches", http, seconds, "batches")
            print(f"  {'in batches of 200 ms, from the publisher':30s} {percentiles(device.delays)}", flush=True)


async def long(seconds: float) -> None:
    """One run for as long as is wanted, in batches of 200 ms; and what its history has."""
    print(f"\none run for {seconds:.0f} s at 20 events a second, published in batches of 200 ms", flush=True)
    async with (
        temporal() as client,
        gateway(client) as process,
        aiohttp.ClientSession(process.url) as http,
    ):
        before = time.monotonic()
        device = await speak(client, "long", http, seconds, "batches")
        print(f"  {len(device.numbers)} events, each once and in order; {percentiles(device.delays)}")
        print(f"  closed: {device.closed}")
        made = await calls(http)
        taken = time.monotonic() - before
        print(f"  calls a second: { {call: round(count / taken, 2) for call, count in made.most_common()} }")
        types: Counter[str] = Counter()
        run_id = (await client.get_workflow_handle("long").describe()).raw_description
        next_run = run_id.workflow_execution_info.first_run_id
        runs = 0
        while next_run:
            runs += 1
            run = client.get_workflow_handle("long", run_id=next_run)
            next_run = ""
            async for event in run.fetch_history_events():
                types[EventType.Name(event.event_type).removeprefix("EVENT_TYPE_WORKFLOW_")] += 1
                next_run = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        print(f"  {runs} runs, {types.total()} history events: {dict(types.most_common())}")


async def cost(runs: int, seconds: float) -> None:
    """What so many open runs cost a minute."""
    async with temporal() as client:
        begun = time.monotonic()
        for at in range(0, runs, 100):
            await asyncio.gather(
                *(
                    client.start_workflow(Idle.run, number % 2 == 0, id=f"idle-{number}", task_queue=QUEUE)
                    for number in range(at, min(at + 100, runs))
                )
            )
            if at % 1000 == 0:
                print(f"    {at} workflows started", flush=True)
        print(
            f"\n{runs} open runs, half of them with a stream; started in {time.monotonic() - begun:.0f} s", flush=True
        )
        rule = json.dumps([{"workflow_type": "Idle"}])
        async with gateway(client, follow=rule) as process, aiohttp.ClientSession(process.url) as http:
            begun = time.monotonic()
            while await metric(http, "wakeline_runs_followed") < runs:  # noqa: ASYNC110 - looked at from outside
                await asyncio.sleep(0.5)
            print(f"  all followed after {time.monotonic() - begun:.1f} s: {dict(await calls(http))}", flush=True)
            await _settle(http)
            before, began = await calls(http), time.monotonic()
            await asyncio.sleep(seconds)
            made = await calls(http) - before
            minutes = (time.monotonic() - began) / 60
            closely = await metric(http, "wakeline_runs_watched_closely")
            print(f"  {closely:.0f} watched closely; calls a minute, all runs idle:")
            for call, count in made.most_common():
                print(f"    {call:40s} {count / minutes:9.1f}   {count / minutes / runs:.4f} a run")
            print(f"    {'all':40s} {made.total() / minutes:9.1f}   {made.total() / minutes / runs:.4f} a run")


async def _settle(http: aiohttp.ClientSession) -> None:
    """Wait until the first looks are over: calls no longer become fewer."""
    before, last = (await calls(http)).total(), 0
    while True:
        await asyncio.sleep(15)
        now = (await calls(http)).total()
        print(f"    {(now - before) / 15:.1f} calls a second", flush=True)
        if last and now - before > 0.85 * last:
            return
        before, last = now, now - before


async def worker(address: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue=QUEUE, workflows=[Idle, Speaker], max_cached_workflows=20_000):
        await asyncio.Event().wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["latency", "cost", "long", "worker"])
    parser.add_argument("address", nargs="?")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int)
    asked = parser.parse_args()
    if asked.what == "worker":
        await worker(asked.address)
    if asked.what in ("latency", None):
        await latency(min(asked.seconds, 60))
    if asked.what in ("long", None):
        await long(asked.seconds)
    if asked.what in ("cost", None):
        for runs in [asked.runs] if asked.runs else (100, 500, 10_000):
            await cost(runs, max(asked.seconds, 60))


if __name__ == "__main__":
    asyncio.run(main())
