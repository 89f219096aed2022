"""The data directory's files are deleted or replaced while the gateway runs."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateways import GatewayProcess
from tests.support import Served, publish
from wakeline.errors import StorageLostError
from wakeline.gateway.log.engines.sqlite import SqliteEngine


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
            assert await asyncio.wait_for(gateway.process.wait(), 60) == 2
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
        await asyncio.wait_for(told.wait(), 60)
        with pytest.raises(StorageLostError, match=r"wakeline\.db (was deleted|is another file now)"):
            await publish(engine, "s", 1)
        assert engine.health().startswith("lost: ")
    finally:
        await engine.close()


def _moved(data: Path) -> None:
    data.rename(data.with_name("other"))
    data.touch()


def _looped(data: Path) -> None:
    data.rename(data.with_name("other"))
    data.symlink_to(data)


def _shortened(data: Path) -> None:
    os.truncate(data / "wakeline.db", 8192)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_moved, "cannot be reached any more: Not a directory"),
        (_looped, "cannot be reached any more: Too many levels of symbolic links"),
        (_shortened, "was overwritten: it has 8192 bytes"),
    ],
)
async def test_another_path_and_a_shorter_database_are_a_loss(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    engine = SqliteEngine(tmp_path / "data")
    await engine.open()
    await publish(engine, "s", 0)
    await engine.close()  # the database is one file now
    engine, told = SqliteEngine(tmp_path / "data"), asyncio.Event()
    engine.listen_lost(lambda _: told.set())
    await engine.open()
    try:
        change(tmp_path / "data")
        await asyncio.wait_for(told.wait(), 60)
        with pytest.raises(StorageLostError, match=message):
            await publish(engine, "s", 1)
    finally:
        await engine.close()


async def test_a_rebuild_that_shortens_the_database_is_no_loss(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path)
    await engine.open()
    await publish(engine, "s", *["x" * 100_000] * 20)
    await engine.close()  # the database is one file now
    before = (tmp_path / "wakeline.db").stat().st_size
    engine, told = SqliteEngine(tmp_path, erase_within=1.0), asyncio.Event()
    engine.listen_lost(lambda _: told.set())
    await engine.open()
    await engine.delete_session("s")
    async with asyncio.timeout(60):
        while (tmp_path / "wakeline.db").stat().st_size >= before / 2:
            await publish(engine, "kept", "y" * 5_000)
            await asyncio.sleep(0.02)
    with pytest.raises(TimeoutError):  # it checks once a second
        await asyncio.wait_for(told.wait(), 2.5)
    await publish(engine, "kept", 1)
    await engine.close()
