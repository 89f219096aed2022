"""`python -m benchmarks.publishing`: tokens, from where they are made to where they are read.

Latency: one stream of 50 tokens a second, and 200 at once, to some devices each, through a `SessionPublisher` and the gateway
(durable), through a Redis relay (nothing kept), and through the official Workflow Streams and a Temporal dev server.
Intake: how many durable events a second 50 publishers bring into one gateway on one core.

The gateway, or the relay, has one core; publishers and devices have the other, and Redis and Temporal may use both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
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

    async def start(self) -> list[Send]:
        gateway(self)
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
    return road.server(
        [sys.executable, "-m", "wakeline", "serve", "--no-auth", "--port", "0", "--data", str(road.folder / "data")]
    )


async def latency(kind: type[Road], streams: int, devices: int, seconds: float) -> None:
    """Every stream at 50 tokens a second, each in its own rhythm."""
    busy: list[float] = []
    with tempfile.TemporaryDirectory(prefix="wakeline-bench-") as folder:
        road = kind(Path(folder), streams, devices)
        async with road.stack:
            try:
                sends = await road.start()
                count = int(seconds * 50)

                async def stream(send: Send) -> None:
                    due = time.monotonic() + random.random() * 0.02
                    for number in range(count):
                        await asyncio.sleep(due - time.monotonic())
                        await send({"t": time.monotonic_ns(), "n": number, "text": TEXT})
                        due = max(due + 0.02, time.monotonic() - 0.02)

                async def sending() -> None:
                    if isinstance(road, Official):
                        road.sent = count
                    before, own, began = cpu_seconds(road.main.pid), time.process_time(), time.monotonic()
                    async with asyncio.timeout(seconds * 2 + 10):
                        await asyncio.gather(*(stream(send) for send in sends))
                        await road.settle()
                    took = time.monotonic() - began
                    busy.append((cpu_seconds(road.main.pid) - before) / took)
                    busy.append((time.process_time() - own) / took)

                road.sending = sending
                async with asyncio.timeout(seconds * 4 + 120):
                    told = await road.read()
            except (TimeoutError, RuntimeError) as error:
                print(
                    f"{kind.title:34s} {streams:4d} x {devices:3d}   fell behind: {str(error) or 'gave up'}", flush=True
                )
                return
    late = " ".join(f"{name} {value:8.2f}" for name, value in told["late"].items())
    missing = streams * devices * count - told["received"]
    print(
        f"{kind.title:34s} {streams:4d} x {devices:3d}   {late} ms   "
        f"{told['received']:8d} delivered, {missing} missing, {told['breaks']} out of order; "
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
    relays: list[type[Road]] = [Relay] if shutil.which("redis-server") else []
    roads: list[type[Road]] = [Wakeline, *relays, ByRequest, Official, OfficialForced]
    for turn in range(asked.rounds):
        print(f"round {turn + 1}: streams x devices, 50 tokens a second each", flush=True)
        for streams, devices in ((1, 1), (1, 100), (200, 1), (200, asked.most)):
            for road in roads:
                # Temporal's dev server cannot take 10,000 signals a second: it is shown that it does not.
                if issubclass(road, Official) and streams * devices > 200:
                    print(f"{road.title:34s} {streams:4d} x {devices:3d}   not tried", flush=True)
                    continue
                await latency(road, streams, devices, asked.seconds)
        await intake(50, 20_000)
        await intake(1, 200_000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--most", type=int, default=80, help="devices of each of 200 streams; open files are limited")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, LOAD_CORE)
    # A hundred readers of the official module are refused some thousand updates; one line each would bury the figures.
    quiet = LoggingConfig(filter=TelemetryFilter(core_level="OFF", other_level="OFF"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)))
    asyncio.run(main(parser.parse_args()))
