"""PgBouncer in transaction mode, as many databases stand behind one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.postgres import PostgresServer
from wakeline.cli.processes import free_port

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user=wakeline
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
logfile = {directory}/log
"""


@contextmanager
def pooler(server: PostgresServer) -> Iterator[int]:
    """PgBouncer before a server, as long as the block lasts; its port."""
    directory = Path(tempfile.mkdtemp(prefix="wakeline-pooler-", dir="/tmp"))
    user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    if user is not None:
        shutil.chown(directory, user)
    port = free_port()
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(_CONFIGURATION.format(server=server.port, port=port, directory=directory))
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "expected PgBouncer: scripts/need pgbouncer"
    process = subprocess.Popen([program, "--quiet", configuration], user=user, cwd="/", start_new_session=True)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


async def until_it_serves(address: str) -> None:
    """Return when a pooler accepts connections."""
    ends = time.monotonic() + 60
    while True:
        try:
            await (await asyncpg.connect(address, statement_cache_size=0)).close()
        except (OSError, asyncpg.PostgresError):
            assert time.monotonic() < ends
            await asyncio.sleep(0.02)
        else:
            return
