"""Reading while no worker is up: wait, tell, go on."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import queue_name, read, start, worker
from wakeline.streams import StreamEnd, StreamUnavailableError, WorkflowStreamClient, subscription


async def test_a_reader_waits_for_a_worker(client: Client) -> None:
    queue = queue_name()
    handle = await start(client, queue, hosts.PublishAndReturn, 3)
    reader = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe()))
    await asyncio.sleep(1)
    async with worker(client, queue):
        assert [item.data for item in await reader] == [0, 1, 2]


async def test_a_reader_outlives_a_restart_of_the_worker(client: Client) -> None:
    queue = queue_name()
    handle = await start(client, queue, hosts.Hub)
    items = WorkflowStreamClient.create(client, handle.id).subscribe()
    async with worker(client, queue):
        await handle.signal("say", args=["n", [1]])
        assert [item.data for item in await read(items, 1)] == [1]
    await handle.signal("say", args=["n", [2]])
    reader = asyncio.create_task(read(items, 1))
    await asyncio.sleep(1)
    async with worker(client, queue):
        assert [item.data for item in await reader] == [2]
        await handle.terminate()


async def test_a_reader_waits_no_longer_than_it_was_told(client: Client) -> None:
    handle = await start(client, queue_name(), hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id)
    with pytest.raises(StreamUnavailableError, match="could not be read for"):
        await read(stream.subscribe(retry_timeout=timedelta(seconds=0)))
    await handle.terminate()


async def test_the_end_without_a_worker_is_told_as_not_drained(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "_DRAIN_TIMEOUT", 0.0)
    queue = queue_name()
    handle = await start(client, queue, hosts.Hub)
    ends: list[StreamEnd] = []
    async with worker(client, queue):
        items = WorkflowStreamClient.create(client, handle.id).subscribe(on_end=ends.append)
        await handle.signal("say", args=["n", [1]])
        assert [item.data for item in await read(items, 1)] == [1]
    await handle.terminate(reason="nobody there")
    assert await read(items) == []
    assert [(end.status, end.failure, end.drained) for end in ends] == [
        (WorkflowExecutionStatus.TERMINATED, "nobody there", False)
    ]


async def test_leaving_early_leaves_nothing_behind(client: Client) -> None:
    queue = queue_name()
    async with worker(client, queue):
        handle = await start(client, queue, hosts.PublishAndReturn, 3)
        before = asyncio.all_tasks()
        items = WorkflowStreamClient.create(client, handle.id).subscribe()
        await read(items, 1)
        await items.aclose()  # type: ignore[attr-defined]  # an async generator behind the official signature
        async with asyncio.timeout(30):
            await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
