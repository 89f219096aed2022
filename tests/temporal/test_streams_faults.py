"""Reading while no worker is up: wait, tell, go on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.service import RPCError, RPCStatusCode

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import PATIENCE, queue_name, read, start, worker
from wakeline.streams import (
    PublishDroppedError,
    StreamEnd,
    StreamUnavailableError,
    WorkflowStreamClient,
    runs,
    subscription,
)


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


async def test_a_namespace_that_is_not_there(client: Client) -> None:
    gone = Client(client.service_client, namespace="gone")
    with pytest.raises(RPCError) as reading:
        await read(WorkflowStreamClient.create(gone, "any").subscribe())
    stream = WorkflowStreamClient.create(gone, "any")
    with pytest.raises(PublishDroppedError) as publishing:
        async with stream:
            stream.topic("n").publish(1)
    assert isinstance(publishing.value.__cause__, RPCError)
    assert {reading.value.status, publishing.value.__cause__.status} == {RPCStatusCode.NOT_FOUND}


async def test_waiting_is_logged(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wakeline.outages._FIRST_SECONDS", 0.0)
    monkeypatch.setattr(runs, "_FIRST_QUERY_TIMEOUT", 0.2)
    handle = await start(client, queue_name(), hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id)
    with pytest.raises(StreamUnavailableError):
        await read(stream.subscribe(retry_timeout=timedelta(milliseconds=100)))
    (message,) = caplog.messages
    assert re.match(rf"Reading workflow {handle.id} has failed for \d+ s and is retried: ", message)
    await handle.terminate()


async def test_a_codec_that_fails_once_loses_no_batch(client: Client) -> None:
    class FailsOnce(PayloadCodec):
        failures = 0

        async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
            if not self.failures:
                self.failures += 1
                raise RuntimeError("the key server is away")
            return list(payloads)

        async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return list(payloads)

    codec = FailsOnce()
    coded = Client(client.service_client, namespace=client.namespace, data_converter=DataConverter(payload_codec=codec))
    queue = queue_name()
    async with worker(client, queue):
        handle = await start(client, queue, hosts.Hub)
        async with WorkflowStreamClient.create(coded, handle.id) as stream:
            for value in (1, 2, 3):
                stream.topic("n").publish(value)
        assert codec.failures == 1
        items = WorkflowStreamClient.create(client, handle.id).subscribe()
        assert [item.data for item in await read(items, 3)] == [1, 2, 3]
        await handle.terminate()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.03, 0.1])
async def test_a_cancelled_reader_resumes_where_it_was(client: Client, seconds: float) -> None:
    async with worker(client) as queue:
        handle = await start(client, queue, hosts.Hub)
        stream = WorkflowStreamClient.create(client, handle.id)
        seen: list[int] = []

        async def follow() -> None:
            async for item in stream.subscribe(from_offset=len(seen)):
                seen.append(item.data)

        for number in range(10):
            reader = asyncio.create_task(follow())
            await handle.signal("say", args=["n", [number]])
            await asyncio.sleep(seconds)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        await handle.signal("close")
        async with asyncio.timeout(PATIENCE):
            await follow()
        assert seen == list(range(10))


async def test_leaving_early_leaves_nothing_behind(client: Client) -> None:
    async with worker(client) as queue:
        handle = await start(client, queue, hosts.Hub)
        await handle.signal("say", args=["n", [1, 2]])
        stream = WorkflowStreamClient.create(client, handle.id)
        # Answered by the worker, whose own tasks are all there by then.
        assert await stream.get_offset() == 2
        before = asyncio.all_tasks()
        items = stream.subscribe()
        await read(items, 1)
        await items.aclose()  # type: ignore[attr-defined]  # an async generator behind the official signature
        left = asyncio.all_tasks() - before
        if left:
            _, pending = await asyncio.wait(left, timeout=60)
            assert not pending
        await handle.terminate()
