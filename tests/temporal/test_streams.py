"""Streams on a real server: what a program that uses them relies on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.soak import SOAK, times
from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import PATIENCE, queue_name, read, start, worker
from wakeline.streams import StreamEnd, TopicTypeError, WorkflowStreamClient

# A poll by update that waits when the run closes makes the SDK warn.
pytestmark = pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")

FAST = timedelta(milliseconds=20)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


def data(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


async def test_workflow_and_activity_publish_to_two_topics(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Order, "o1")
    stream = WorkflowStreamClient.create(client, handle.id)
    everything = await read(stream.subscribe())
    assert [item.offset for item in everything] == [0, 1, 2, 3]
    assert [item.topic for item in everything] == ["status", "progress", "progress", "status"]
    assert data(await read(stream.topic("progress", type=str).subscribe())) == ["charging o1", "charged o1"]
    status = await read(stream.subscribe("status", result_type=hosts.Status))
    assert data(status) == [hosts.Status("received"), hosts.Status("complete", 100)]
    assert await handle.result() == "charge-o1"


async def test_publish_from_a_client(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=FAST)
    async with stream:
        stream.topic("a").publish({"n": 1})
        await stream.flush()
        assert await stream.get_offset() == 1
        stream.topic("b").publish(Payload(metadata={"encoding": b"binary/plain"}, data=b"\0\1"))
    items = await read(stream.subscribe(result_type=RawValue), 2)
    assert [(item.topic, item.offset) for item in items] == [("a", 0), ("b", 1)]
    assert items[1].data.payload.data == b"\0\1"


async def test_read_from_an_offset(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.PublishAndReturn, 10)
    items = await read(WorkflowStreamClient.create(client, handle.id).subscribe(from_offset=7))
    assert data(items) == [7, 8, 9]


async def test_publish_and_return_at_once_loses_nothing(client: Client) -> None:
    name = queue_name()

    async def once() -> list[Any]:
        handle = await start(client, name, hosts.PublishAndReturn, 5)
        return data(await read(WorkflowStreamClient.create(client, handle.id).subscribe(result_type=int)))

    # A sandbox is made anew for each run and each reading of a closed one; dozens of times that is all one would see.
    async with Worker(
        client, task_queue=name, workflows=[hosts.PublishAndReturn], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        for _ in range(times(3, 10)):
            assert await asyncio.gather(*(once() for _ in range(20))) == [[0, 1, 2, 3, 4]] * 20


async def test_a_live_reader_gets_events_as_they_come(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    items = WorkflowStreamClient.create(client, handle.id).subscribe(["n"])
    for number in range(5):
        await handle.signal("say", args=["other", ["skipped"]])
        await handle.signal("say", args=["n", [number]])
        assert data(await read(items, 1)) == [number]
    await handle.signal("close")
    assert await read(items) == []


@pytest.mark.parametrize("processes", [1, 40 if SOAK == 1 else 200])
async def test_two_hundred_readers_see_everything(client: Client, queue: str, processes: int) -> None:
    # Readers that share a Temporal client ask together; those of other processes cannot.
    clients = [Client(client.service_client, namespace=client.namespace) for _ in range(processes)]
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=FAST)
    readers = [
        asyncio.create_task(read(WorkflowStreamClient.create(clients[index % processes], handle.id).subscribe(["n"])))
        for index in range(200)
    ]
    async with stream:
        for number in range(50):
            stream.topic("n").publish(number)
            await asyncio.sleep(0.02)
    events = (await handle.describe()).history_length
    await handle.signal("close")
    async with asyncio.timeout(PATIENCE):
        for reader in readers:
            assert data(await reader) == list(range(50))
    # Reading has left nothing in the history: a signal and the three events of its task is the most a batch costs.
    assert events <= 1 + 3 + 50 * 4


async def test_continue_as_new_shows_no_seam(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Roller, hosts.RollerInput(runs_left=4))
    ends: list[StreamEnd] = []
    items = await read(WorkflowStreamClient.create(client, handle.id).subscribe(on_end=ends.append))
    assert [item.offset for item in items] == list(range(12))
    assert [item.data[:2] for item in items] == [[run, index] for run in (4, 3, 2, 1) for index in range(3)]
    assert [(end.status, end.drained) for end in ends] == [(WorkflowExecutionStatus.COMPLETED, True)]


async def test_a_state_too_large_to_carry_keeps_the_newest(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Roller, hosts.RollerInput(runs_left=3, size=400_000))
    async with asyncio.timeout(PATIENCE):
        await client.get_workflow_handle(handle.id).result()
    items = await read(WorkflowStreamClient.create(client, handle.id).subscribe())
    offsets = [item.offset for item in items]
    assert offsets == list(range(offsets[0], 9))
    assert len(offsets) >= 3
    assert offsets[0] > 0


async def test_publishing_goes_on_over_continue_as_new(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Carrier, hosts.CarrierInput())
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=FAST)
    reader = asyncio.create_task(read(stream.subscribe()))
    async with stream:
        for number in range(60):
            stream.topic("n").publish(number)
            if number % 20 == 10:
                await client.get_workflow_handle(handle.id).signal("roll")
            await asyncio.sleep(0.02)
    await client.get_workflow_handle(handle.id).signal("close")
    assert data(await reader) == list(range(60))


@pytest.mark.parametrize("host", [hosts.Hub, hosts.HubWithoutQuery])
async def test_termination_ends_the_iterator(client: Client, queue: str, host: Any) -> None:
    handle = await start(client, queue, host)
    await handle.signal("say", args=["n", [1]])
    ends: list[StreamEnd] = []
    items = WorkflowStreamClient.create(client, handle.id).subscribe(on_end=ends.append)
    assert data(await read(items, 1)) == [1]
    await handle.terminate(reason="enough")
    assert await read(items) == []
    assert [(end.status, end.failure) for end in ends] == [(WorkflowExecutionStatus.TERMINATED, "enough")]
    assert ends[0].drained is (host is hosts.Hub)


async def test_the_end_tells_the_failure(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Failing)
    ends: list[StreamEnd] = []
    assert data(await read(WorkflowStreamClient.create(client, handle.id).subscribe(on_end=ends.append))) == ["before"]
    assert [(end.status, end.failure, end.drained) for end in ends] == [
        (WorkflowExecutionStatus.FAILED, "out of stock", True)
    ]


async def test_a_truncated_offset_reads_from_the_oldest(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    await handle.signal("say", args=["n", list(range(10))])
    await handle.execute_update("truncate", 6)
    stream = WorkflowStreamClient.create(client, handle.id)
    for from_offset in (-1, 0, 3):
        items = await read(stream.subscribe(from_offset=from_offset), 4)
        assert [(item.offset, item.data) for item in items] == [(n, n) for n in range(6, 10)]
    assert await stream.get_offset() == 10


async def test_a_future_offset_waits_for_it(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    reader = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe(from_offset=3), 1))
    for number in range(5):
        await handle.signal("say", args=["n", [number]])
        await asyncio.sleep(0.1)
    assert data(await reader) == [3]


async def test_an_unknown_workflow_is_not_found(client: Client) -> None:
    with pytest.raises(RPCError) as caught:
        await read(WorkflowStreamClient.create(client, "no-such-workflow").subscribe())
    assert caught.value.status == RPCStatusCode.NOT_FOUND


async def test_one_stream_per_workflow(client: Client, queue: str) -> None:
    twice = await start(client, queue, hosts.ConstructsTwice)
    refusal: str = await twice.result()
    assert refusal.startswith("WorkflowStream is already registered on this workflow. ")
    late = await start(client, queue, hosts.ConstructsLate)
    refusal = await late.result()
    assert refusal.startswith(
        "WorkflowStream must be constructed directly from the workflow's @workflow.init method, not from 'run'"
    )


async def test_a_topic_has_one_type(client: Client) -> None:
    stream = WorkflowStreamClient.create(client, "unused")
    stream.topic("a", type=int)
    assert stream.topic("a", type=int).type is int
    with pytest.raises(TopicTypeError, match="already bound to type"):
        stream.topic("a", type=str)
    with pytest.raises(TopicTypeError, match=r"type=Payload.*RawValue"):
        stream.topic("b", type=Payload)
    with pytest.raises(TopicTypeError, match=r"result_type=Payload.*RawValue"):
        stream.subscribe(result_type=Payload)
