"""A data directory that was put back: no device is given other events for those that it has."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import sqlite3
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import GatewayProcess
from tests.support import Served


async def write(served: Served, first: int, count: int, **more: str) -> list[dict[str, Any]]:
    return [await served.publish("s", {"topic": "t", "data": n}, **more) for n in range(first, first + count)]


def online(data: Path, backup: Path) -> None:
    """Back up while the gateway runs, as `sqlite3 wakeline.db .backup` does."""
    backup.mkdir()
    with sqlite3.connect(data / "wakeline.db") as source, sqlite3.connect(backup / "wakeline.db") as target:
        source.backup(target)
    source.close()
    target.close()


def copied(data: Path, backup: Path) -> None:
    """Put a copy of the directory, or of what is in the backup, in its place: its files have other inodes."""
    data.rename(data.with_name("before"))
    shutil.copytree(backup, data)


def has_generations(path: Path) -> bool:
    """Whether the file system distinguishes two files that have one inode after each other."""
    with path.open("rb") as file, suppress(OSError):
        fcntl.ioctl(file, 0x80087601, bytes(8))
        return True
    return False


def copied_onto_its_inode(data: Path, backup: Path) -> None:
    """Put a copy of a whole directory in its place, whose database has the inode of the deleted one, as ext4 likes to do."""
    if not has_generations(data / "wakeline.mark"):  # nothing could tell the copy there, as the documents say
        copied(data, backup)
        return
    inode = (data / "wakeline.db").stat().st_ino
    shutil.rmtree(data)
    data.mkdir()
    for number in range(2_000):
        made = data / f"file-{number}"
        made.touch()
        if made.stat().st_ino == inode:
            made.rename(data / "wakeline.db")
            break
    for each in backup.iterdir():
        shutil.copyfile(each, data / each.name)
    for each in data.glob("file-*"):
        each.unlink()


def overwritten(data: Path, backup: Path) -> None:
    """Write the backup's database into the file that is there, whose inode stays."""
    for name in ("wakeline.db-wal", "wakeline.db-shm"):
        (data / name).unlink(missing_ok=True)
    (data / "wakeline.db").write_bytes((backup / "wakeline.db").read_bytes())


def overwritten_without_the_mark(data: Path, backup: Path) -> None:
    """The same into a directory that has nothing else, as when the system gives a copy the inode of the deleted file."""
    overwritten(data, backup)
    (data / "wakeline.mark").unlink()


@pytest.mark.parametrize("ends", ["stop", "kill"])
@pytest.mark.parametrize("restore", [copied, overwritten, overwritten_without_the_mark])
async def test_a_newer_cursor_is_answered_410_and_no_other_events(
    tmp_path: Path, ends: str, restore: Callable[[Path, Path], None]
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    gateway = GatewayProcess(data)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await write(served, 0, 3)
            online(data, backup)
            mark = (data / "wakeline.mark").read_bytes()
            await write(served, 3, 2)
            while (data / "wakeline.mark").read_bytes() == mark:  # commits within 50 ms of the last mark add none
                await write(served, 5, 1)
            cursor = (await served.call("GET", "/v1/sessions/s/events"))[1]["cursor"]
            device = "/v1/sessions/s/devices/phone"
            assert (await served.call("PUT", device, json={"seen": f"{cursor.rpartition('-')[0]}-2"}))[0] == 200
        await getattr(gateway, ends)()
        restore(data, backup)
        await gateway.start()
        async with Served(gateway.url) as served:
            await served.publish("s", {"topic": "t", "data": "another"}, publisher="p", sequence="0")
            await write(served, 10, 4)
            status, answer = await served.call("GET", f"/v1/sessions/s/events?from={cursor}")
            assert (status, answer["error"]["code"]) == (410, "epoch_changed")
            page = (await served.call("GET", "/v1/sessions/s/events"))[1]
            assert [event["data"] for event in page["events"]] == [0, 1, 2, "another", 10, 11, 12, 13]
            headers = {"Wakeline-Publisher": "p", "Wakeline-Sequence": "5"}
            body = {"events": [{"topic": "t", "data": 5}]}
            status, answer = await served.call("POST", "/v1/sessions/s/events", json=body, headers=headers)
            assert (status, answer["error"]["code"], answer["error"]["expected"]) == (409, "sequence_gap", 1)
            assert "restored" in answer["error"]["hint"]
            cursor = page["cursor"]
        await gateway.stop()
        await gateway.start()  # a restart is no restore
        async with Served(gateway.url) as served:
            assert (await served.call("GET", f"/v1/sessions/s/events?from={cursor}"))[0] == 200
    finally:
        await gateway.kill()


@pytest.mark.parametrize("restore", [copied, copied_onto_its_inode])
async def test_records_by_epoch_move_with_the_restored_session(
    tmp_path: Path, restore: Callable[[Path, Path], None]
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    gateway = GatewayProcess(data)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await write(served, 0, 5)
            epoch = (await served.call("GET", "/v1/sessions/s"))[1]["epoch"]
            assert (await served.call("PUT", "/v1/sessions/s/devices/phone", json={"seen": f"{epoch}-2"}))[0] == 200
        await gateway.stop()
        shutil.copytree(data, backup)
        restore(data, backup)
        await gateway.start()
        async with Served(gateway.url) as served:
            page = (await served.call("GET", "/v1/sessions/s/events?from=device&device=phone"))[1]
            assert page["epoch"] != epoch
            assert [event["offset"] for event in page["events"]] == [2, 3, 4]
    finally:
        await gateway.kill()


async def run(*command: str) -> tuple[int | None, str]:
    """A command's exit code, and what its output begins with."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    return process.returncode, output.decode().partition(":")[0]


async def test_a_volume_that_was_rolled_back_is_declared(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    gateway = GatewayProcess(data)
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await write(served, 0, 3)
        await gateway.stop()
        shutil.copytree(data, backup)
        await gateway.start()
        async with Served(gateway.url) as served:
            await write(served, 3, 2)
            cursor = (await served.call("GET", "/v1/sessions/s"))[1]["cursor"]
            admin = [sys.executable, "-m", "wakeline", "restored", "--data", str(data)]
            assert await run(*admin) == (2, "data_in_use")
        await gateway.stop()
        assert not (data / "wakeline.db-wal").exists()  # a database that was closed is one file
        for file in data.iterdir():  # onto the same inodes, the mark included
            file.write_bytes((backup / file.name).read_bytes())
        assert await run(*admin) == (0, str(data))
        await gateway.start()
        async with Served(gateway.url) as served:
            await write(served, 10, 4)
            status, answer = await served.call("GET", f"/v1/sessions/s/events?from={cursor}")
            assert (status, answer["error"]["code"]) == (410, "epoch_changed")
    finally:
        await gateway.kill()
