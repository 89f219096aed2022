"""The systems that are compared. Each can be started, told how to publish to it, and how a device attaches."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import ALL_CORES, SERVER_CORE, Process, StartError, cpu_seconds
from benchmarks.publishers import HttpPublisher, PipePublisher, Publisher, RedisPublisher

HERE = Path(__file__).parent
NOTHING_KEPT = ("--save", "", "--appendonly", "no")  # Redis as it is fastest: nothing goes to disk


class System(ABC):
    """One way to get an event from a publisher to N devices."""

    key: str
    title: str

    def __init__(self, folder: Path, devices: int) -> None:
        self.folder, self.devices = folder, devices
        self._processes: list[Process] = []

    def _start(self, command: list[str], cores: set[int], *, pipe: bool = False, url: bool = True) -> Process:
        process = Process(command, cores, self.folder, pipe=pipe)
        process.start(wait_for_url=url)
        self._processes.append(process)
        return process

    @abstractmethod
    def start(self) -> Publisher:
        """Starts the servers and returns a publisher that is connected to them."""

    @property
    def server(self) -> Process:
        """The process that the devices talk to: the one whose CPU time is the price of a delivery."""
        return self._processes[-1]

    @property
    @abstractmethod
    def request(self) -> bytes:
        """What a device says when it attaches."""

    def cpu(self) -> tuple[float, float]:
        """CPU seconds so far: of the server, and of what stands beside it."""
        return cpu_seconds(self.server.pid), sum(cpu_seconds(process.pid) for process in self._processes[:-1])

    def last_words(self) -> str:
        return self.server.last_words() if self._processes else ""

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()

    def _get(self, path: str) -> bytes:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.server.port}\r\nAccept: text/event-stream\r\n\r\n"
        return head.encode()


class Wakeline(System):
    """The gateway as it is installed: SQLite, and no answer before the disk has the event."""

    key = "wakeline"
    title = "Wakeline, durable"
    path = "/v1/sessions/bench/events"

    def start(self) -> Publisher:
        data = self.folder / "data"
        data.mkdir()
        command = [sys.executable, "-m", "wakeline", "serve", "--data", str(data), "--host", "127.0.0.1"]
        # The load opens its connections long before it uses the last of them.
        os.environ["WAKELINE_HEADER_TIMEOUT"] = "600"
        server = self._start([*command, "--port", "0", "--no-auth"], SERVER_CORE)
        return HttpPublisher(server.port, self.path)

    @property
    def request(self) -> bytes:
        return self._get(self.path + "?from=now")


class Relay(System):
    """Redis pub/sub relayed by FastAPI, a subscription to Redis for each client. Redis may use any core."""

    key = "relay"
    title = "Redis relay, a pubsub per client"
    route = "each"

    def start(self) -> Publisher:
        missing = [name for name in ("fastapi", "uvicorn", "redis") if importlib.util.find_spec(name) is None]
        redis = shutil.which("redis-server")
        if missing or redis is None:
            raise StartError("not here: " + ", ".join(missing + ["redis-server"] * (redis is None)))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._start(
            [redis, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder), *NOTHING_KEPT],
            set(ALL_CORES),
            url=False,
        )
        publisher = self._connect(port)
        self._start([sys.executable, "-m", "benchmarks.relays.redis_relay", f"redis://127.0.0.1:{port}"], SERVER_CORE)
        return publisher

    def _connect(self, port: int) -> Publisher:
        deadline = time.monotonic() + 10
        while True:
            try:
                return RedisPublisher(port, b"bench")
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise StartError("redis-server does not listen") from None
                time.sleep(0.02)

    @property
    def request(self) -> bytes:
        return self._get(f"/{self.route}/bench")


class SharedRelay(Relay):
    """The same relay with one subscription for all and a queue for each client."""

    key = "shared_relay"
    title = "Redis relay, one pubsub + queues"
    route = "shared"


class SendLoop(System):
    """Nothing but send() in a loop: what one core can do at the most. In C; without a compiler it is left out."""

    key = "limit"
    title = "limit: send() loop in C"
    _program: Sequence[str] = ()

    @classmethod
    def prepare(cls, folder: Path) -> None:
        """Compiles the loop, once for all rounds."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is not None:
            target = folder / "sendloop"
            source = HERE / "raw" / "sendloop.c"
            subprocess.run([compiler, "-O2", "-o", str(target), str(source)], check=True, timeout=60)
            cls._program = [str(target)]

    def start(self) -> Publisher:
        if not self._program:
            raise StartError("there is no C compiler here")
        server = self._start([*self._program, str(self.devices)], SERVER_CORE, pipe=True)
        return PipePublisher(server.input)

    @property
    def request(self) -> bytes:
        return self._get("/")


class PythonSendLoop(SendLoop):
    """The same loop in Python: what one core can do at the most for a server in this language."""

    key = "python_limit"
    title = "limit: send() loop in Python"
    _program: Sequence[str] = (sys.executable, str(HERE / "raw" / "sendloop.py"))


SYSTEMS: tuple[type[System], ...] = (Wakeline, Relay, SharedRelay, SendLoop, PythonSendLoop)
