"""Another program reads the database for long: the write-ahead log grows, and a gauge shows by how much."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

WAL = "wakeline_wal_bytes"
USUAL = 50_000_000
"""The bytes below which the log usually stays, as the reference of metrics has it."""


async def write(served: Served, size: int) -> None:
    """Append events of together this size."""
    for _ in range(size // 500_000):
        await served.publish("s", {"topic": "t", "data": "x" * 500_000})


async def test_the_write_ahead_log_grows_while_a_foreign_reader_reads_and_shrinks_afterwards(tmp_path: Path) -> None:
    settings = Settings(port=0, no_auth=True, data=str(tmp_path), durability="process")
    async with gateway(settings) as url, Served(url) as served:
        await write(served, 70_000_000)
        assert 0 < await served.metric(WAL) < USUAL
        with closing(sqlite3.connect(tmp_path / "wakeline.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            await write(served, 70_000_000)
            assert await served.metric(WAL) > 70_000_000
        async with asyncio.timeout(60):
            while await served.metric(WAL) > USUAL:
                await write(served, 500_000)
                await asyncio.sleep(0.1)
