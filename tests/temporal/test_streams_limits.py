"""The limits of a run and of a publisher's memory, on a server that takes few signals and updates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from tests.servers import temporal_server
from tests.temporal import streams_limits_workflows as hosts
from tests.temporal import streams_workflows
from tests.temporal.streams_support import read, start
from wakeline.buffer import WhenFull
from wakeline.streams import BufferFullError, SignalLimitError, WorkflowStreamClient, budget, flusher, stream

FAST = timedelta(milliseconds=20)
HOUR = timedelta(hours=1)
LIMIT = 60
UPDATES = 3


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small() -> AsyncIterator[Client]:
    """A client of that server."""
    async with temporal_server(
        history_maximumSignalsPerExecution=LIMIT, history_maxTotalUpdates=UPDATES, history_maxInFlightUpdates=UPDATES
    ) as environment:
        yield environment.client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(small: Client) -> AsyncIterator[str]:
    async with Worker(small, task_queue="limits", workflows=[hosts.Enduring, streams_workflows.Hub]):
        yield "limits"


def data(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


async def test_the_wall_is_told_with_the_events(small: Client, queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "_SIGNAL_LIMIT_GRACE", 0.0)
    handle = await start(small, queue, streams_workflows.Hub)
    client = WorkflowStreamClient.create(small, handle.id, batch_interval=HOUR)
    numbers = client.topic("n", type=int)
    for number in range(LIMIT):
        numbers.publish(number)
        await client.flush()
    numbers.publish(LIMIT)
    numbers.publish(LIMIT + 1)
    with pytest.raises(SignalLimitError, match="limit for signal events") as caught:
        await client.flush()
    assert [event.payload.data for event in caught.value.events] == [b"60", b"61"]
    assert data(await read(client.subscribe(), LIMIT)) == list(range(LIMIT))
    await handle.terminate()


@pytest.mark.parametrize("told", [True, False])
async def test_a_host_that_heeds_the_suggestion_takes_everything(
    small: Client, queue: str, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Also where it is late to: then those who send wait at the wall until there is a new run."""
    monkeypatch.setattr(stream, "_SIGNALS_SUGGESTED", LIMIT * 8 // 10 if told else LIMIT)
    monkeypatch.setattr(budget, "SIGNALS_PER_RUN", LIMIT)
    monkeypatch.setattr(budget, "_LOOK_EVERY", 5)
    handle = await start(small, queue, hosts.Enduring, hosts.EnduringInput())
    client = WorkflowStreamClient.create(small, handle.id, batch_interval=FAST, max_batch_size=1)
    reader = asyncio.create_task(read(client.subscribe("n")))
    async with client:
        for number in range(150):
            client.topic("n").publish(number, force_flush=True)
            await asyncio.sleep(0.005)
    latest = small.get_workflow_handle(handle.id)
    assert await latest.execute_update("close") > 150
    assert data(await reader) == list(range(150))
    assert await latest.result() >= 3


async def test_reading_uses_no_updates_up(small: Client, queue: str) -> None:
    handle = await start(small, queue, streams_workflows.Hub)
    clients = [Client(small.service_client, namespace=small.namespace) for _ in range(2 * UPDATES)]
    readers = [WorkflowStreamClient.create(client, handle.id).subscribe() for client in clients]
    for number in range(10 * UPDATES):
        await handle.signal("say", args=["n", [number]])
        for reader in readers:
            assert data(await read(reader, 1)) == [number]
    # Not one was used: all of them are left.
    for _ in range(UPDATES):
        await handle.execute_update("truncate", 0)
    with pytest.raises(RPCError, match="total number of distinct updates"):
        await handle.execute_update("truncate", 0)
    await handle.signal("close")
    for reader in readers:
        assert await read(reader) == []


async def test_threads_wait_for_room(small: Client, queue: str) -> None:
    handle = await start(small, queue, streams_workflows.Hub)
    client = WorkflowStreamClient.create(small, handle.id, batch_interval=FAST, max_buffered_items=40)

    def publish(topic: str) -> None:
        for number in range(200):
            client.topic(topic).publish(number)

    async with client:
        await asyncio.gather(*(asyncio.to_thread(publish, topic) for topic in "ab"))
    items = await read(client.subscribe(), 400)
    for topic in "ab":
        assert [item.data for item in items if item.topic == topic] == list(range(200))
    await handle.terminate()


@pytest.mark.parametrize("entered", [True, False])
async def test_publish_wait_waits_for_room(small: Client, queue: str, entered: bool) -> None:
    handle = await start(small, queue, streams_workflows.Hub)
    client = WorkflowStreamClient.create(small, handle.id, batch_interval=FAST, max_buffered_bytes=2_000)
    if entered:
        await client.__aenter__()
    for number in range(300):
        await client.topic("n").publish_wait(number)
    await (client.__aexit__(None) if entered else client.flush())
    assert data(await read(client.subscribe(), 300)) == list(range(300))
    await handle.terminate()


@pytest.mark.parametrize(
    ("when_full", "arrived", "discarded"),
    [("drop_oldest", [15, 16, 17, 18, 19], 15), ("coalesce", [0, 1, 2, 3, 19], 15)],
)
async def test_later_events_are_preferred(
    small: Client, queue: str, when_full: WhenFull, arrived: list[int], discarded: int
) -> None:
    handle = await start(small, queue, streams_workflows.Hub)
    client = WorkflowStreamClient.create(small, handle.id, max_buffered_items=5, when_full=when_full)
    for number in range(20):
        client.topic("n").publish(number)
    await client.flush()
    assert client.discarded_events == discarded
    assert data(await read(client.subscribe(), 5)) == arrived
    await handle.terminate()


@pytest.mark.parametrize("when_full", ["block", "error"])
async def test_no_room_is_told(small: Client, queue: str, when_full: WhenFull) -> None:
    handle = await start(small, queue, streams_workflows.Hub)
    async with WorkflowStreamClient.create(
        small, handle.id, batch_interval=HOUR, max_buffered_items=5, when_full=when_full
    ) as client:
        for number in range(5):
            client.topic("n").publish(number)
        with pytest.raises(BufferFullError):
            client.topic("n").publish(5)
    assert data(await read(client.subscribe(), 5)) == list(range(5))
    await handle.terminate()
