"""Streams from threads that have no event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import Worker

from tests.temporal import streams_limits_workflows as hosts
from tests.temporal import streams_workflows
from tests.temporal.streams_support import PATIENCE, queue_name, read, start
from wakeline.streams import StreamEnd, StreamUnavailableError, SyncWorkflowStreamClient, WorkflowStreamClient, sync

FAST = timedelta(milliseconds=20)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    steps = hosts.Steps(client)
    with ThreadPoolExecutor(4) as threads:
        async with Worker(
            client,
            task_queue=queue_name(),
            workflows=[hosts.Counting, hosts.Adding, streams_workflows.Hub, streams_workflows.PublishAndReturn],
            activities=[steps.count_to, steps.add_up],
            activity_executor=threads,
        ) as worker:
            yield worker.task_queue


def synchronous(client: Client, workflow_id: str) -> SyncWorkflowStreamClient:
    return SyncWorkflowStreamClient(WorkflowStreamClient.create(client, workflow_id, batch_interval=FAST))


async def reading_tasks() -> int:
    """How many tasks of readers the sending thread has."""

    async def count() -> int:
        names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
        return sum("Subscription" in name or "Run." in name or "_Job" in name for name in names)

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(count(), sync.sending.loop()))


async def test_a_def_activity_publishes(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Counting)
    items = await read(WorkflowStreamClient.create(client, handle.id).topic("number", type=int).subscribe())
    assert [item.data for item in items] == list(range(40))
    assert await handle.result() == 40


async def test_a_def_activity_reads(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Adding, [1, 2, 3, 4])
    assert await handle.result() == 10


async def test_a_thread_reads_to_the_end(client: Client, queue: str) -> None:
    handle = await start(client, queue, streams_workflows.PublishAndReturn, 500)
    ends: list[StreamEnd] = []

    def follow() -> list[tuple[int, int]]:
        stream = synchronous(client, handle.id)
        items = stream.subscribe("number", 3, result_type=int, on_end=ends.append)
        assert stream.get_offset() == 500
        return [(item.offset, item.data) for item in items]

    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(follow) == [(number, number) for number in range(3, 500)]
    assert [end.status for end in ends] == [WorkflowExecutionStatus.COMPLETED]


async def test_a_thread_reads_what_another_publishes(client: Client, queue: str) -> None:
    handle = await start(client, queue, streams_workflows.Hub)
    stream = synchronous(client, handle.id)

    def publish() -> None:
        with stream:
            for number in range(100):
                stream.topic("n").publish(number)

    def follow() -> list[int]:
        items = stream.subscribe("n", result_type=int)
        return [next(items).data for _ in range(100)]

    async with asyncio.timeout(PATIENCE):
        seen, _ = await asyncio.gather(asyncio.to_thread(follow), asyncio.to_thread(publish))
    assert seen == list(range(100))
    await handle.terminate()


async def test_leaving_the_loop_early_leaves_nothing_behind(client: Client, queue: str) -> None:
    handle = await start(client, queue, streams_workflows.Hub)
    await handle.signal("say", args=["n", [1, 2]])

    def first() -> int:
        for item in synchronous(client, handle.id).subscribe(result_type=int):
            return item.data
        raise AssertionError

    assert await asyncio.to_thread(first) == 1
    gc.collect()
    async with asyncio.timeout(PATIENCE):
        while await reading_tasks():
            await asyncio.sleep(0.05)
    await handle.terminate()


async def test_what_cancels_the_thread_stops_the_reading(
    client: Client, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the cancellation of an activity does, or Ctrl-C: an exception that comes up while the thread waits."""
    handle = await start(client, queue, streams_workflows.Hub)
    waiting = threading.Event()

    def attend(*arguments: object) -> object:
        waiting.set()
        raise KeyboardInterrupt

    def follow() -> None:
        monkeypatch.setattr("wakeline.blocking._wait", attend)
        with pytest.raises(KeyboardInterrupt):
            next(synchronous(client, handle.id).subscribe())
        monkeypatch.undo()

    await asyncio.to_thread(follow)
    assert waiting.is_set()
    async with asyncio.timeout(PATIENCE):
        while await reading_tasks():
            await asyncio.sleep(0.05)
    await handle.terminate()


async def test_errors_reach_the_thread(client: Client) -> None:
    handle = await start(client, queue_name(), streams_workflows.Hub)

    def follow() -> None:
        list(synchronous(client, handle.id).subscribe(retry_timeout=timedelta(0)))

    with pytest.raises(StreamUnavailableError):
        await asyncio.to_thread(follow)
    await handle.terminate()
