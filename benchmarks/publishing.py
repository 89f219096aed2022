"""`python -m benchmarks.publishing`: tokens, from where they are made to where they are read.

Latency: streams of some tokens a second each, to some devices each, through a `SessionPublisher` and the gateway (durable),
through a Redis relay (nothing kept), by an HTTP request for each token (durable), and through the official Workflow Streams
and a Temporal dev server. Each row has the server's CPU time for each token, whatever the number of its devices.
Intake: how many durable events a second 50 publishers bring into one gateway on one core.

The gateway, or the relay, has one core; publishers and devices have the other, and Redis and Temporal may use both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
from temporalio.contrib import workflow_streams as official
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.testing import WorkflowEnvironment
from tests.temporal.streams_workflows import OfficialHub

from benchmarks.processes import ALL_CORES, LOAD_CORE, SERVER_CORE, Process, cpu_seconds, on_cores
from benchmarks.systems import NOTHING_KEPT
from wakeline.cli.processes import free_port
from wakeline.client import Session, SessionClient
from wakeline.publisher import SessionPublisher

TEXT = "x" * 40
_INTERVAL = timedelta(milliseconds=100)
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Road(ABC):
    """One way from a publisher to devices."""

    title: str
    path = ""

    def __init__(self, folder: Path, streams: int, devices: int) -> None:
        self.folder, self.streams, self.devices = folder, streams, devices
        self.port = 0
        self.stack = AsyncExitStack()

    @abstractmethod
    async def start(self) -> list[Send]:
        """Start everything; how each stream sends."""

    async def settle(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Return when everything that was sent has left the publisher."""

    def server(self, command: list[str], cores: set[int] | None = None) -> Process:
        process = Process(command, cores or SERVER_CORE, self.folder)
        process.start()
        self.stack.callback(process.stop)
        self.port = process.port
        self.main = process
        return process

    async def read(self) -> dict[str, Any]:
        """Have devices read while `self.sending` runs; what they saw."""
        command = [sys.executable, "-m", "benchmarks.stream_readers", str(self.port), self.path]
        with on_cores(LOAD_CORE):
            readers = await asyncio.create_subprocess_exec(
                *command, f"--streams={self.streams}", f"--devices={self.devices}",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert readers.stdin is not None
        assert readers.stdout is not None
        if await readers.stdout.readline() != b"ready\n":
            raise RuntimeError("the devices could not connect")
        try:
            await self.sending()
            await asyncio.sleep(2)
            readers.stdin.write(b"\n")
            told: dict[str, Any] = json.loads(await readers.stdout.readline())
            return told
        finally:
            if readers.returncode is None:
                readers.terminate()
            await readers.wait()

    sending: Callable[[], Awaitable[None]]


class Wakeline(Road):
    title = "Wakeline, durable"
    path = "/v1/sessions/s{}/events"

    def serve(self) -> None:
        """Start what publishers and devices talk to."""
        gateway(self)

    async def start(self) -> list[Send]:
        self.serve()
        self.publishers = [
            await self.stack.enter_async_context(SessionPublisher(f"http://127.0.0.1:{self.port}", session=f"s{n}"))
            for n in range(self.streams)
        ]
        return [publisher.topic("delta").publish for publisher in self.publishers]

    async def settle(self) -> None:
        for publisher in self.publishers:
            await publisher.flush()


class Relay(Road):
    title = "Redis relay, one pubsub + queues"
    path = "/shared/s{}"

    async def start(self) -> list[Send]:
        port = free_port()
        listen = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        server = Process(["redis-server", *listen, *NOTHING_KEPT], set(ALL_CORES), self.folder)
        server.start(wait_for_url=False)
        self.stack.callback(server.stop)
        client: Any = redis.asyncio.Redis(port=port, max_connections=1000)
        self.stack.push_async_callback(client.aclose)
        for _ in range(100):
            try:
                await client.ping()
                break
            except redis.exceptions.ConnectionError:
                await asyncio.sleep(0.05)
        self.server([sys.executable, "-m", "benchmarks.relays.redis_relay", f"redis://127.0.0.1:{port}"])

        def sender(channel: str) -> Send:
            async def send(value: dict[str, Any]) -> None:
                await client.publish(channel, json.dumps(value, separators=(",", ":")))

            return send

        return [sender(f"s{n}") for n in range(self.streams)]


class ByRequest(Road):
    """The same gateway with a request for each token, as a publisher without a connection of its own would."""

    title = "Wakeline, durable, by request"
    path = Wakeline.path

    async def start(self) -> list[Send]:
        gateway(self)
        client = await self.stack.enter_async_context(SessionClient(f"http://127.0.0.1:{self.port}"))

        def sender(session: Session, publisher: str) -> Send:
            async def send(value: dict[str, Any]) -> None:
                await session.publish("delta", value, publisher=publisher, sequence=value["n"])

            return send

        sessions = [client.session(f"s{n}") for n in range(self.streams)]
        for session in sessions:
            await session.create()
        return [sender(session, f"p{n}") for n, session in enumerate(sessions)]


class Official(Road):
    """With batches of 100 ms, and everything else as it comes."""

    title = "official Workflow Streams"
    forced = False

    async def start(self) -> list[Send]:
        temporal = await self.stack.enter_async_context(
            await WorkflowEnvironment.start_local(
                dev_server_existing_path=str(Path(sys.executable).with_name("temporal")), dev_server_log_level="never"
            )
        )
        target = temporal.client.service_client.config.target_host
        self.server([sys.executable, "-m", "benchmarks.publishing", "--worker", target])
        self.late: list[float] = []
        self.received: list[int] = []
        self.readers: list[asyncio.Task[None]] = []
        sends: list[Send] = []
        for _ in range(self.streams):
            handle = await temporal.client.start_workflow(
                OfficialHub.run, id=f"w{random.random()}", task_queue="publishing"
            )
            self.stack.push_async_callback(handle.terminate)
            client = official.WorkflowStreamClient.create(temporal.client, handle.id, batch_interval=_INTERVAL)
            await self.stack.enter_async_context(client)
            for _ in range(self.devices):
                mine = official.WorkflowStreamClient.create(temporal.client, handle.id)
                self.received.append(0)
                self.readers.append(asyncio.create_task(self._follow(mine, len(self.readers))))
            sends.append(self._sender(client))
        return sends

    def _sender(self, client: Any) -> Send:
        async def send(value: dict[str, Any]) -> None:
            client.topic("delta").publish(value, force_flush=self.forced)

        return send

    async def _follow(self, client: Any, number: int) -> None:
        options = {"poll_cooldown": timedelta(0)} if self.forced else {}
        async for item in client.subscribe("delta", **options):
            self.late.append((time.monotonic_ns() - item.data["t"]) / 1e6)
            self.received[number] += 1

    async def read(self) -> dict[str, Any]:
        await asyncio.sleep(1)
        await self.sending()
        deadline = time.monotonic() + 10
        while min(self.received) < self.sent and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for task in self.readers:
            task.cancel()
        await asyncio.gather(*self.readers, return_exceptions=True)
        ordered = sorted(self.late) or [0.0]
        late = {f"p{part}": ordered[min(len(ordered) * part // 100, len(ordered) - 1)] for part in (50, 95, 99)}
        return {"fewest": min(self.received), "received": sum(self.received), "breaks": 0, "late": late}

    sent = 0


class OfficialForced(Official):
    """Every token told to go at once, and asked for again at once: a signal and an update a token."""

    title = "official, each token forced"
    forced = True


def gateway(road: Road) -> Process:
    data = os.environ.get("WAKELINE_DATA", str(road.folder / "data"))
    return road.server([sys.executable, "-m", "wakeline", "serve", "--no-auth", "--port", "0", "--data", data])


@dataclass(frozen=True)
class Row:
    """A load: streams, the devices of each, and the tokens a second of each. Written as `200x1@50`."""

    streams: int
    devices: int
    rate: float = 50

    @classmethod
    def parse(cls, text: str) -> Row:
        found = re.fullmatch(r"(\d+)x(\d+)(?:@(\d+))?", text)
        if found is None:
            raise argparse.ArgumentTypeError(f"expected STREAMSxDEVICES@TOKENS, such as 200x1@50, got {text!r}")
        return cls(int(found[1]), int(found[2]), float(found[3] or 50))

    def __str__(self) -> str:
        return f"{self.streams:4d} x {self.devices:3d} @ {self.rate:2.0f}"


ROWS = "1x1 1x100 200x1 200x1@25 200x2 200x10 200x80 1000x1@10"
BY_REQUEST = "1x1 200x1@25"


async def latency(kind: type[Road], row: Row, seconds: float) -> None:
    """Every stream sends at its rate, in its own rhythm."""
    busy: list[float] = []
    starts: list[float] = []
    streams, devices, pause = row.streams, row.devices, 1 / row.rate
    with tempfile.TemporaryDirectory(prefix="wakeline-bench-") as folder:
        road = kind(Path(folder), streams, devices)
        async with road.stack:
            try:
                sends = await road.start()
                count = int(seconds * row.rate)

                async def stream(send: Send) -> None:
                    due = time.monotonic() + random.random() * pause
                    for number in range(count):
                        await asyncio.sleep(due - time.monotonic())
                        await send({"t": time.monotonic_ns(), "n": number, "text": TEXT})
                        due = max(due + pause, time.monotonic() - pause)

                async def sending() -> None:
                    if isinstance(road, Official):
                        road.sent = count
                    before, own, began = cpu_seconds(road.main.pid), time.process_time(), time.monotonic()
                    starts.append(began)
                    async with asyncio.timeout(seconds * 2 + 10):
                        await asyncio.gather(*(stream(send) for send in sends))
                        await road.settle()
                    took = time.monotonic() - began
                    used = cpu_seconds(road.main.pid) - before
                    busy.extend((used / took, (time.process_time() - own) / took, used))

                road.sending = sending
                async with asyncio.timeout(seconds * 4 + 120):
                    told = await road.read()
                    rate = told["received"] / (time.monotonic() - starts[0])
            except (TimeoutError, RuntimeError) as error:
                print(f"{kind.title:34s} {row}   fell behind: {str(error) or 'gave up'}", flush=True)
                return
    late = " ".join(f"{name} {value:8.2f}" for name, value in told["late"].items())
    missing = streams * devices * count - told["received"]
    print(
        f"{kind.title:34s} {row}   {late} ms   {busy[2] * 1e6 / streams / count:5.0f} µs a token   "
        f"{told['received']:8d} delivered, {rate:.0f}/s, {missing} missing, {told['breaks']} out of order; "
        f"server {busy[0]:.0%}, publishers {busy[1]:.0%} of a core",
        flush=True,
    )


async def intake(publishers: int, events: int) -> None:
    """As fast as the gateway takes it; nothing is lost, and everything is on disk."""
    with tempfile.TemporaryDirectory(prefix="wakeline-bench-") as folder:
        road = Wakeline(Path(folder), publishers, 0)
        async with road.stack:
            sends = await road.start()
            before, started = cpu_seconds(road.main.pid), time.monotonic()
            own = time.process_time()

            async def flood(send: Send, publisher: SessionPublisher) -> None:
                for number in range(events):
                    await send({"t": 0, "n": number, "text": TEXT})
                await publisher.flush()

            await asyncio.gather(*map(flood, sends, road.publishers))
            took = time.monotonic() - started
            used, own = cpu_seconds(road.main.pid) - before, time.process_time() - own
            url = f"http://127.0.0.1:{road.port}/v1/sessions/s0"
            async with aiohttp.ClientSession() as http, http.get(url) as answer:
                there = (await answer.json())["next_offset"]
    total = publishers * events
    print(
        f"{publishers} publishers: {total / took:8.0f} durable events/s; gateway {total / used:8.0f} a CPU-s "
        f"({used / took:.0%} of its core), publishers {total / own:8.0f} a CPU-s; {there} of {events} in a session",
        flush=True,
    )


async def work(target: str) -> None:
    """The worker of the official module, in a process of its own."""
    from temporalio.client import Client
    from temporalio.worker import Worker

    client = await Client.connect(target)
    async with Worker(client, task_queue="publishing", workflows=[OfficialHub], max_concurrent_workflow_tasks=200):
        print("working http://127.0.0.1:1", flush=True)
        await asyncio.Event().wait()


async def main(asked: argparse.Namespace) -> None:
    if asked.worker:
        await work(asked.worker)
        return
    if not shutil.which("redis-server"):
        print("redis-server is missing: the relay is left out", flush=True)
    for turn in range(asked.rounds):
        print(f"round {turn + 1}: streams x devices of each @ tokens a second of each", flush=True)
        for row in asked.rows:
            for road in roads_of(row, asked):
                await latency(road, row, asked.seconds)
        if not asked.only or asked.only in Wakeline.title:
            await intake(50, 20_000)
            await intake(1, 200_000)


def roads_of(row: Row, asked: argparse.Namespace) -> list[type[Road]]:
    """What is measured with a row's load."""
    roads: list[type[Road]] = [Wakeline]
    if shutil.which("redis-server"):
        roads.append(Relay)
    if row in map(Row.parse, BY_REQUEST.split()):
        roads.append(ByRequest)
    # Temporal's dev server cannot take 10,000 signals a second.
    if row.streams * row.devices <= 100:
        roads += [Official, OfficialForced]
    return [road for road in roads if not asked.only or asked.only in road.title]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--rows",
        type=Row.parse,
        nargs="+",
        default=[*map(Row.parse, ROWS.split())],
        help=f"default: {ROWS}",
        metavar="200x1@50",
    )
    parser.add_argument("--only", default="", help="only systems whose names contain this, such as durable")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, LOAD_CORE)
    # A hundred readers of the official module are refused some thousand updates; one line each would bury the figures.
    quiet = LoggingConfig(filter=TelemetryFilter(core_level="OFF", other_level="OFF"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)))
    asyncio.run(main(parser.parse_args()))
