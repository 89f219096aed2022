"""Hosts without the poll query are read by update, of which a server lets ten wait in a workflow and a run takes 2,000."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from tests.servers import temporal_server
from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import PATIENCE, Handle, queue_name, read, start, worker
from wakeline.streams import StreamEnd, StreamUnavailableError, WorkflowStreamClient, budget, places, runs
from wakeline.streams.wire import POLL, PollInput, PollResult

# A poll by update that waits when the run closes makes the SDK warn.
pytestmark = pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")

UPDATES = 5


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small() -> AsyncIterator[Client]:
    """A client of a server that takes few updates."""
    async with (
        temporal_server(history_maxTotalUpdates=UPDATES) as environment,
        Worker(environment.client, task_queue="updates", workflows=[hosts.CarrierWithoutQuery, hosts.HubWithoutQuery]),
    ):
        yield environment.client


def data(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


async def until_an_update_waits(handle: Handle) -> None:
    """Return when the workflow has accepted an update that it has not answered."""
    async with asyncio.timeout(PATIENCE):
        while True:
            kinds = [event.event_type for event in (await handle.fetch_history()).events]
            accepted = kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED)
            if accepted > kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED):
                return
            await asyncio.sleep(0.05)


async def updates(handle: Handle) -> int:
    history = await handle.fetch_history()
    return sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED for event in history.events)


async def test_events_come_as_they_are_published(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.HubWithoutQuery)
    items = WorkflowStreamClient.create(client, handle.id).subscribe()
    await handle.signal("say", args=["n", [1, 2]])
    assert data(await read(items, 2)) == [1, 2]
    await handle.signal("say", args=["n", [3]])
    assert data(await read(items, 1)) == [3]
    await handle.signal("close")
    assert await read(items) == []


async def test_the_last_events_before_the_close_are_read(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.CarrierWithoutQuery, hosts.CarrierInput())
    items = WorkflowStreamClient.create(client, handle.id).subscribe()
    await handle.signal("say", args=[[1]])
    assert data(await read(items, 1)) == [1]
    reader = asyncio.create_task(read(items))
    # The task that ends the run also answers the update that waits in the workflow.
    await until_an_update_waits(handle)
    await handle.signal("say", args=[[2]])
    await handle.signal("close")
    assert data(await reader) == [2]


@pytest_asyncio.fixture(loop_scope="session")
async def sound() -> AsyncIterator[Client]:
    """A client of a server that shows a worker no events which it may yet take back.

    With those, a worker of a throng may miss a signal, see "Many readers" in docs/concepts/stream-limits.md: no reader
    can do anything about that.
    """
    async with (
        temporal_server(history_sendTransientOrSpeculativeWorkflowTaskEvents=False) as environment,
        Worker(environment.client, task_queue="updates", workflows=[hosts.HubWithoutQuery]),
    ):
        yield environment.client


async def test_more_readers_than_may_wait(sound: Client) -> None:
    handle = await start(sound, "updates", hosts.HubWithoutQuery)
    readers = []
    for _ in range(30):
        # Those that share a client ask together.
        own = Client(sound.service_client, namespace=sound.namespace)
        readers.append(asyncio.create_task(read(WorkflowStreamClient.create(own, handle.id).subscribe(), 5)))
    for number in range(5):
        await handle.signal("say", args=["n", [number]])
        await asyncio.sleep(0.5)
    for reader in readers:
        assert data(await reader) == [0, 1, 2, 3, 4]
    await handle.terminate()


async def test_an_update_that_the_worker_left_undone_is_asked_again(
    client: Client, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = runs.Run._update
    undone = [ApplicationError("not processed by worker", type="UnprocessedUpdate")] * 2

    async def update(run: runs.Run, topics: tuple[str, ...], offset: int) -> PollResult:
        if undone:
            raise WorkflowUpdateFailedError(undone.pop())
        return await asked(run, topics, offset)

    monkeypatch.setattr(runs.Run, "_update", update)
    handle = await start(client, queue, hosts.HubWithoutQuery)
    await handle.signal("say", args=["n", [1]])
    assert data(await read(WorkflowStreamClient.create(client, handle.id).subscribe(), 1)) == [1]
    assert not undone
    await handle.terminate()


async def test_a_host_that_encodes_its_failures_is_read(client: Client) -> None:
    config = client.config(active_config=True)
    config["data_converter"] = DataConverter(failure_converter_class=DefaultFailureConverterWithEncodedAttributes)
    coded, own = Client(**config), queue_name()
    async with Worker(coded, task_queue=own, workflows=[hosts.HubWithoutQuery]):
        handle = await start(coded, own, hosts.HubWithoutQuery)
        await handle.signal("say", args=["n", [1]])
        assert data(await read(WorkflowStreamClient.create(coded, handle.id).subscribe(), 1)) == [1]
        await handle.terminate()


async def test_readers_slow_down_as_updates_are_used_up(
    client: Client, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "UPDATES_PER_RUN", 30)
    monkeypatch.setattr(budget, "_UPDATE_SECONDS", 20.0)
    handle = await start(client, queue, hosts.HubWithoutQuery)
    items = WorkflowStreamClient.create(client, handle.id).subscribe(poll_cooldown=timedelta(milliseconds=10))
    reader = asyncio.create_task(read(items, 200))
    for number in range(200):
        await handle.signal("say", args=["n", [number]])
        await asyncio.sleep(0.02)
    assert data(await reader) == list(range(200))
    assert 15 < await updates(handle) < 30
    await handle.terminate()


async def test_a_run_without_updates_left_is_waited_for(small: Client, caplog: pytest.LogCaptureFixture) -> None:
    handle = await start(small, "updates", hosts.CarrierWithoutQuery, hosts.CarrierInput())
    current = small.get_workflow_handle(handle.id)
    ends: list[StreamEnd] = []
    items = WorkflowStreamClient.create(small, handle.id).subscribe(on_end=ends.append)
    for number in range(UPDATES):
        await current.signal("say", args=[[number]])
        assert data(await read(items, 1)) == [number]
    rest = asyncio.ensure_future(anext(items))
    async with asyncio.timeout(PATIENCE):
        while not caplog.messages:
            await asyncio.sleep(0.05)
    assert "as many updates as the server allows" in caplog.messages[0]
    # Carried into the next run, which has updates of its own.
    await current.signal("say", args=[[UPDATES]])
    await current.signal("roll")
    async with asyncio.timeout(PATIENCE):
        assert (await rest).data == UPDATES
    await current.signal("close")
    assert await read(items) == []
    assert [end.status for end in ends] == [WorkflowExecutionStatus.COMPLETED]
    assert len(caplog.messages) == 1


async def test_a_reader_waits_no_longer_than_it_was_told(small: Client) -> None:
    handle = await start(small, "updates", hosts.HubWithoutQuery)
    for _ in range(UPDATES):
        await handle.execute_update("truncate", 0)
    stream = WorkflowStreamClient.create(small, handle.id)
    with pytest.raises(StreamUnavailableError, match="total number of distinct updates"):
        await read(stream.subscribe(retry_timeout=timedelta(0)))
    await handle.terminate()


async def test_who_sees_that_all_places_are_taken_does_not_ask(
    client: Client, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, miss = runs.Run._update, places.Places.missed
    asked: list[int] = []
    missed: list[int] = []

    async def update(run: runs.Run, topics: tuple[str, ...], offset: int) -> PollResult:
        asked.append(offset)
        return await ask(run, topics, offset)

    def count(of: places.Places) -> None:
        missed.append(of.taken)
        miss(of)

    monkeypatch.setattr(runs.Run, "_update", update)
    monkeypatch.setattr(places.Places, "missed", count)
    handle = await start(client, queue, hosts.HubWithoutQuery)
    for _ in range(places.ALLOWED):
        await handle.start_update(POLL, PollInput([], 0), wait_for_stage=WorkflowUpdateStage.ACCEPTED)
    reader = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe(), 1))
    async with asyncio.timeout(PATIENCE):
        while missed.count(places.ALLOWED) < 4:
            await asyncio.sleep(0.05)
    # Once at most, if that was before it had heard of the others. Each time too many makes the server forget what comes.
    assert len(asked) <= 1
    await handle.signal("say", args=["n", [1]])
    assert data(await reader) == [1]
    await handle.terminate()
