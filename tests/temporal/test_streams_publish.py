"""Publishing on a real server: whole, once, in order, whatever is published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistoryEventFilterType
from temporalio.service import RPCError, RPCStatusCode

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import Handle, read, start, worker
from wakeline.streams import (
    PublishDroppedError,
    PublishEntry,
    PublishInput,
    ValueRefusedError,
    ValueTooLargeError,
    WorkflowStreamClient,
)
from wakeline.streams.wire import OFFSET_QUERY, PUBLISH_SIGNAL, encode_payload

FAST = timedelta(milliseconds=20)
HOUR = timedelta(hours=1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


def data(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


def entry(value: bytes) -> PublishEntry:
    return PublishEntry("n", encode_payload(Payload(metadata={"encoding": b"json/plain"}, data=value)))


async def signals(handle: Handle) -> list[PublishInput]:
    """The publish signals in the history."""
    # Signals that come while a task runs are in the history after it, and a query is answered after it.
    await handle.query(OFFSET_QUERY)
    found = []
    async for event in handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.ALL_EVENT):
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == PUBLISH_SIGNAL:
            found += await handle._client.data_converter.decode(signal.input.payloads, [PublishInput])
    return found


async def test_a_burst_of_20000_arrives_whole(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id)
    text = "x" * 100
    async with stream:
        for number in range(20_000):
            stream.topic("n").publish([number, text])
    items = await read(stream.subscribe(), 20_000)
    assert [item.data[0] for item in items] == list(range(20_000))
    assert [item.offset for item in items] == list(range(20_000))
    await handle.terminate()


async def test_max_batch_size_caps(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=HOUR, max_batch_size=10)
    async with stream:
        for number in range(35):
            stream.topic("n").publish(number)
    assert [len(signal.items) for signal in await signals(handle)] == [10, 10, 10, 5]
    await handle.terminate()


async def test_an_oversize_value_is_refused_and_its_neighbours_arrive(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=FAST)
    async with stream:
        topic = stream.topic("n")
        topic.publish("before")
        with pytest.raises(ValueTooLargeError) as caught:
            topic.publish("x" * 1_500_000)
        topic.publish("x" * 1_400_000)
        topic.publish("after")
    assert caught.value.code == "value_too_large"
    assert [len(value) for value in data(await read(stream.subscribe(), 3))] == [6, 1_400_000, 5]
    await handle.terminate()


async def test_a_value_that_cannot_be_converted_is_refused(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id)
    async with stream:
        stream.topic("n").publish(1)
        with pytest.raises(ValueRefusedError, match="got object"):
            stream.topic("n").publish(object())
        stream.topic("n").publish(2)
    assert data(await read(stream.subscribe(), 2)) == [1, 2]
    await handle.terminate()


async def test_a_malformed_entry_is_skipped_and_the_workflow_lives(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    bad = [PublishEntry("n", "abc"), PublishEntry("n", "AAAA"), PublishEntry("n", "ä")]
    await handle.signal(PUBLISH_SIGNAL, PublishInput([bad[0], entry(b"1"), *bad[1:], entry(b"2")]))
    unfit: list[Any] = [[{"topic": 1, "data": 2}], [7], [{}], 7]
    for items in unfit:
        await handle.signal(PUBLISH_SIGNAL, {"items": items})
    # The SDK drops a signal that is no batch at all.
    await handle.signal(PUBLISH_SIGNAL, "nonsense")
    await handle.signal(PUBLISH_SIGNAL, PublishInput([entry(b"3")]))
    assert data(await read(WorkflowStreamClient.create(client, handle.id).subscribe(), 3)) == [1, 2, 3]
    await handle.signal("close")
    assert await handle.result() == 7


async def test_a_repeated_batch_is_taken_once(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Carrier, hosts.CarrierInput())
    latest = client.get_workflow_handle(handle.id)
    first, second = PublishInput([entry(b"1")], "p", 1), PublishInput([entry(b"2")], "p", 2)
    for batch in (first, first, second, first, second):
        await latest.signal(PUBLISH_SIGNAL, batch)
    stream = WorkflowStreamClient.create(client, handle.id)
    assert data(await read(stream.subscribe(), 2)) == [1, 2]
    await latest.signal("roll")
    await latest.signal(PUBLISH_SIGNAL, second)
    await latest.signal(PUBLISH_SIGNAL, PublishInput([entry(b"3")], "p", 3))
    assert data(await read(stream.subscribe(), 3)) == [1, 2, 3]
    await latest.signal("close")
    assert data(await read(stream.subscribe())) == [1, 2, 3]


async def test_no_publisher_id_means_no_deduplication(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    for _ in range(2):
        await handle.signal(PUBLISH_SIGNAL, PublishInput([entry(b"1")]))
    assert data(await read(WorkflowStreamClient.create(client, handle.id).subscribe(), 2)) == [1, 1]
    await handle.terminate()


async def test_cancelling_a_flush_neither_loses_nor_doubles(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=FAST)
    async with stream:
        for number in range(100):
            stream.topic("n").publish(number)
            flush = asyncio.create_task(stream.flush())
            # At each of several points of the call, by the count of turns of the loop.
            for _ in range(number % 10):
                await asyncio.sleep(0)
            flush.cancel()
            await asyncio.gather(flush, return_exceptions=True)
    await handle.signal("close")
    assert data(await read(stream.subscribe())) == list(range(100))


async def test_publishing_to_a_closed_workflow_reports_the_events(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.PublishAndReturn, 0)
    await handle.result()
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=FAST)
    with pytest.raises(PublishDroppedError) as caught:
        async with stream:
            stream.topic("n").publish("lost")
    assert [(event.topic, event.payload.data) for event in caught.value.events] == [("n", b'"lost"')]
    assert isinstance(caught.value.__cause__, RPCError)
    assert caught.value.__cause__.status == RPCStatusCode.NOT_FOUND
    assert (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED


async def test_publishing_from_another_thread(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    stream = WorkflowStreamClient.create(client, handle.id, batch_interval=FAST)

    def publish(name: str) -> None:
        for number in range(200):
            stream.topic(name).publish(number)

    async with stream:
        await asyncio.gather(*(asyncio.to_thread(publish, name) for name in "abc"))
    await handle.signal("close")
    items = await read(stream.subscribe())
    for name in "abc":
        assert [item.data for item in items if item.topic == name] == list(range(200))
