"""A disk without a byte left: what the gateway says, what it serves, how room is made, and how it starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.disk import Disk, small_disk
from tests.gateways import GatewayProcess
from tests.support import Served

BIG = {"topic": "t", "data": "x" * 100_000}


def gateway_on(disk: Disk, *, log_too: bool = True) -> GatewayProcess:
    """A gateway with its data, and its log, on the disk."""
    log = f'exec "$@" 2>>{disk.path}/log' if log_too else 'exec "$@"'
    return GatewayProcess(disk.path / "data", prefix=[*disk.enter, "sh", "-c", log, "sh"])


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    async with small_disk(tmp_path / "disk", "24m") as disk:
        yield disk


async def publish(served: Served, session: str) -> None:
    for _ in range(3):
        await served.publish(session, *[BIG] * 8)


async def append(served: Served) -> tuple[int, Any]:
    return await served.call("POST", "/v1/sessions/new/events", json={"events": [BIG]})


async def append_until_full(served: Served) -> int:
    for acknowledged in range(200):
        status, answer = await append(served)
        if status != 200:
            assert (status, answer["error"]["code"]) == (507, "storage_full")
            return acknowledged
    raise AssertionError("expected the disk to be full")


async def append_until_accepted(served: Served) -> None:
    async with asyncio.timeout(60):
        while (await append(served))[0] != 200:
            await asyncio.sleep(0.05)


async def test_a_full_disk_that_has_the_log_too_is_degraded_and_a_deletion_makes_room(disk: Disk) -> None:
    gateway = gateway_on(disk)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            for name in ("old", "older"):
                await publish(served, name)
            acknowledged = 0
            for _ in range(3):  # what the write-ahead log gives back is used, too
                disk.fill()
                acknowledged += await append_until_full(served)
            status, health = await served.call("GET", "/readyz")
            assert (status, health["status"]) == (200, "degraded")
            assert "the disk is full" in health["log"]
            assert "delete sessions" in health["log"]
            assert (await served.call("DELETE", "/v1/sessions/old"))[0] == 204
            await append_until_accepted(served)  # within what was deleted, the disk being as full as before
            disk.make_room()
            await append_until_accepted(served)
            assert len((await served.call("GET", "/v1/sessions/older/events"))[1]["events"]) > 0
            assert (await served.call("GET", "/v1/sessions/new"))[1]["next_offset"] == acknowledged + 2
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()


@pytest.mark.parametrize("ends", ["stop", "kill"])
async def test_a_start_on_a_full_disk_serves_reads_and_refuses_appends_at_once(disk: Disk, ends: str) -> None:
    gateway = gateway_on(disk)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await publish(served, "old")
        await getattr(gateway, ends)()
        disk.fill()
        await gateway.start()
        async with Served(gateway.url) as served:
            page = (await served.call("GET", "/v1/sessions/old/events"))[1]
            assert [event["offset"] for event in page["events"]] == [0, 1, 2]
            began = time.monotonic()
            await append_until_full(served)
            assert time.monotonic() - began < 30
            assert (await served.call("GET", "/readyz"))[1]["status"] == "degraded"
    finally:
        await gateway.kill()


async def test_a_start_without_any_space_tells_how_much_to_make(disk: Disk) -> None:
    gateway = gateway_on(disk, log_too=False)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await publish(served, "old")
        await gateway.stop()
        (disk.seen / "data" / "wakeline.reserve").unlink()
        disk.fill()
        await gateway.start(wait=False)
        assert gateway.process is not None
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 2
        log = gateway.log.read_text()
        assert f"storage_full: expected 4 MiB of free space in {disk.path / 'data'} for the start" in log
        assert "Make space on the disk" in log
        disk.make_room()
        await gateway.start()
    finally:
        await gateway.kill()
