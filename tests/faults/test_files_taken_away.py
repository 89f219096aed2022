"""The data directory's files are deleted or replaced while the gateway runs."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.gateways import GatewayProcess
from tests.support import Served, publish
from wakeline.errors import StorageLostError
from wakeline.gateway.engines.sqlite import SqliteEngine


@pytest.mark.parametrize(
    ("name", "replaced"),
    [("wakeline.db", False), ("wakeline.db", True), ("wakeline.db-wal", False), ("wakeline.lock", True)],
)
async def test_nothing_more_is_acknowledged_and_the_gateway_ends(tmp_path: Path, name: str, replaced: bool) -> None:
    data = tmp_path / "data"
    gateway = GatewayProcess(data)
    await gateway.start()
    assert gateway.process is not None
    try:
        async with Served(gateway.url) as served:
            await served.publish("s", {"topic": "t", "data": 0})
            if replaced:
                shutil.copy(data / name, data / "copy")
                (data / "copy").rename(data / name)
            else:
                (data / name).unlink()
            assert await asyncio.wait_for(gateway.process.wait(), 20) == 2
        log = gateway.log.read_text()
        assert f"storage_lost: expected the data directory as it was opened, {data / name}" in log
        assert "Put the right files back" in log
    finally:
        await gateway.kill()


async def test_an_append_after_the_loss_is_refused_with_a_hint(tmp_path: Path) -> None:
    engine, told = SqliteEngine(tmp_path), asyncio.Event()
    engine.listen_lost(lambda _: told.set())
    await engine.open()
    try:
        await publish(engine, "s", 0)
        (tmp_path / "wakeline.db").unlink()
        await asyncio.wait_for(told.wait(), 10)
        with pytest.raises(StorageLostError, match=r"wakeline\.db (was deleted|is another file now)"):
            await publish(engine, "s", 1)
        assert engine.health().startswith("lost: ")
    finally:
        await engine.close()
