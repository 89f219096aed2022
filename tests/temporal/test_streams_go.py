"""Ours and the official Go library on either side of the wire. Skipped where there is no Go, or not its modules."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowExecutionStatus

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import PATIENCE, Handle, queue_name, read, start, worker
from wakeline.streams import StreamEnd, WorkflowStreamClient

# The official client reads by update, and one that waits when the run closes makes the SDK warn. The first test of all
# may have to compile the Go SDK.
pytestmark = [
    pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning"),
    pytest.mark.timeout(600),
]

FOLDER = Path(__file__).with_name("interop_go")
FAST = timedelta(milliseconds=20)

VALUES: list[Any] = [{"text": "é日本", "n": [1, None, 0.5]}, b"\0\xff", None, "plain", True, *range(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, compiled apart, so that what Go adds to its files is not ours."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no `go` program")
    folder = tmp_path_factory.mktemp("interop") / "go"
    shutil.copytree(FOLDER, folder)

    async def run(*arguments: str) -> str | None:
        """What is wrong, if anything."""
        process = await asyncio.create_subprocess_exec(
            go, *arguments, cwd=folder, env={**os.environ, "GOFLAGS": "-mod=mod"}, stdout=PIPE, stderr=PIPE
        )
        _, errors = await process.communicate()
        return errors.decode()[-2000:] if process.returncode else None

    if await run("mod", "download"):
        pytest.skip(f"`go mod download` in a copy of {FOLDER.name} failed: the official Go library cannot be had here")
    if wrong := await run("build", "-o", "interop", "."):
        pytest.fail(f"`go build` in a copy of {FOLDER} failed:\n{wrong}")
    return folder / "interop"


@asynccontextmanager
async def running(program: Path, client: Client, *arguments: str) -> AsyncIterator[Process]:
    """The program in one of its roles; over when this is."""
    address = client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        program, address, *arguments, stdin=PIPE, stdout=PIPE, stderr=sys.stderr.fileno()
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def plain(value: Any) -> Any:
    return {"$bytes": value.hex()} if isinstance(value, bytes) else value


async def go_publishes(program: Path, client: Client, workflow_id: str, values: list[Any]) -> None:
    lines = "".join(json.dumps(["n", plain(value)]) + "\n" for value in values)
    async with running(program, client, "publish", workflow_id) as process:
        await asyncio.wait_for(process.communicate(lines.encode()), PATIENCE)
        assert process.returncode == 0


class GoReader:
    """Offsets and values as the official client reads them."""

    def __init__(self, program: Path, client: Client, workflow_id: str) -> None:
        self.seen: list[tuple[int, Any]] = []
        self._reading = asyncio.create_task(self._read(program, client, workflow_id))

    async def _read(self, program: Path, client: Client, workflow_id: str) -> None:
        async with running(program, client, "subscribe", workflow_id) as process:
            assert process.stdout
            async for line in process.stdout:
                _, value, offset = json.loads(line)
                self.seen.append((offset, value))
            assert await process.wait() == 0

    async def has(self, count: int) -> None:
        """Return when it has read this many.

        Their client ends with the run, and does not read what it has not seen by then.
        """
        async with asyncio.timeout(PATIENCE):
            while len(self.seen) < count and not self._reading.done():
                await asyncio.sleep(0.02)

    async def to_the_end(self) -> list[tuple[int, Any]]:
        await asyncio.wait_for(self._reading, PATIENCE)
        return self.seen


async def we_publish(client: Client, workflow_id: str, values: list[Any]) -> None:
    async with WorkflowStreamClient.create(client, workflow_id, batch_interval=FAST) as stream:
        for value in values:
            stream.topic("n").publish(value)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def our_queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def their_queue(client: Client, program: Path) -> AsyncIterator[str]:
    queue = queue_name()
    async with running(program, client, "worker", queue) as process:
        assert process.stdin
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
        yield queue
        process.stdin.close()
        await asyncio.wait_for(process.wait(), PATIENCE)


async def start_theirs(client: Client, queue: str) -> Handle:
    return await client.start_workflow("GoHub", {}, id=f"go-{uuid.uuid4().hex[:8]}", task_queue=queue)


async def test_our_host(client: Client, our_queue: str, program: Path) -> None:
    handle = await start(client, our_queue, hosts.Hub)
    ours = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe()))
    theirs = GoReader(program, client, handle.id)
    await go_publishes(program, client, handle.id, VALUES)
    await we_publish(client, handle.id, VALUES)
    await theirs.has(2 * len(VALUES))
    await handle.signal("close")
    assert [(item.offset, item.data) for item in await ours] == list(enumerate(VALUES * 2))
    assert await theirs.to_the_end() == list(enumerate([plain(value) for value in VALUES * 2]))


async def test_our_host_continues_as_new(client: Client, our_queue: str, program: Path) -> None:
    handle = await start(client, our_queue, hosts.Carrier, hosts.CarrierInput())
    latest = client.get_workflow_handle(handle.id)
    theirs = GoReader(program, client, handle.id)
    for part in range(3):
        await go_publishes(program, client, handle.id, [part])
        await theirs.has(part + 1)
        await latest.signal("roll" if part < 2 else "close")
    items = await read(WorkflowStreamClient.create(client, handle.id).subscribe())
    assert [item.data for item in items] == [0, 1, 2]
    assert await theirs.to_the_end() == [(0, 0), (1, 1), (2, 2)]


async def test_their_host(client: Client, their_queue: str, program: Path) -> None:
    handle = await start_theirs(client, their_queue)
    ends: list[StreamEnd] = []
    items = WorkflowStreamClient.create(client, handle.id).subscribe(on_end=ends.append)
    theirs = GoReader(program, client, handle.id)
    await we_publish(client, handle.id, VALUES)
    await go_publishes(program, client, handle.id, VALUES)
    assert [(item.offset, item.data) for item in await read(items, 2 * len(VALUES))] == list(enumerate(VALUES * 2))
    await theirs.has(2 * len(VALUES))
    await handle.signal("close")
    # It has no poll query, so that nothing can be read after the run has closed.
    assert await read(items) == []
    assert [(end.status, end.drained) for end in ends] == [(WorkflowExecutionStatus.COMPLETED, False)]
    assert await theirs.to_the_end() == list(enumerate([plain(value) for value in VALUES * 2]))


async def test_their_host_continues_as_new(client: Client, their_queue: str) -> None:
    handle = await start_theirs(client, their_queue)
    latest = client.get_workflow_handle(handle.id)
    items = WorkflowStreamClient.create(client, handle.id).subscribe()
    for part in range(3):
        run_id = (await latest.describe()).run_id
        await we_publish(client, handle.id, [part])
        assert [(item.offset, item.data) for item in await read(items, 1)] == [(part, part)]
        if part < 2:
            await latest.signal("roll")
            # What reaches this host together with the signal that rolls it over, it loses.
            async with asyncio.timeout(PATIENCE):
                while (await latest.describe()).run_id == run_id:
                    await asyncio.sleep(0.05)
    await latest.signal("close")
    assert await read(items) == []
