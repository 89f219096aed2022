"""`WakelinePlugin` nudges the gateway: when a workflow may have something new, only then, and at nobody's expense."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Replayer, Worker

from tests.integrations.nudging_workflows import Asks, Cheats, Steps, StepsOutsideTheSandbox, Threaded, publish
from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.publisher.test_nudger import silent
from tests.upstream import RecordingUpstream, recording
from wakeline.cli.processes import free_port
from wakeline.integrations.temporal import WakelinePlugin
from wakeline.streams import WorkflowStreamClient

PATIENCE = 60


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> RecordingUpstream:
    return recording(monkeypatch)


@asynccontextmanager
async def worker(client: Client, *plugins: WakelinePlugin, **options: Any) -> AsyncIterator[str]:
    queue = f"nudges-{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(4) as threads:
        async with Worker(
            client,
            task_queue=queue,
            workflows=[Steps, StepsOutsideTheSandbox, Asks, Cheats],
            activities=[publish, Threaded(client).publish_in_a_thread],
            activity_executor=threads,
            plugins=plugins,
            **options,
        ):
            yield queue


def name() -> str:
    return f"nudged-{uuid.uuid4().hex[:8]}"


async def start(client: Client, queue: str, kind: type = Steps, id: str = "") -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(kind.__name__, id=id or name(), task_queue=queue)


async def end(handle: WorkflowHandle[Any, Any]) -> Any:
    await handle.signal("end")
    async with asyncio.timeout(PATIENCE):
        return await handle.result()


@pytest.mark.parametrize("kind", [Steps, StepsOutsideTheSandbox])
async def test_each_step_of_a_workflow_is_told_its_end_included(
    client: Client, upstream: RecordingUpstream, served: Served, kind: type
) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        handle = await start(client, queue, kind)
        await upstream.until_nudged(handle.id)
        for step in range(3):
            await handle.signal("step")
            await upstream.until_nudged(handle.id, times=step + 2)
        assert await end(handle) == 3
        await upstream.until_nudged(handle.id, times=5)
    assert upstream.nudged == [(handle.id, client.namespace)] * 5


async def test_a_workflow_that_is_only_asked_is_not_told_of(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        handle = await start(client, queue)
        await upstream.until_nudged(handle.id)
        for _ in range(5):
            assert await handle.query("count") == 0
        reader = WorkflowStreamClient.create(client, handle.id)
        assert await reader.get_offset() == 0
        await end(handle)
        await upstream.until_nudged(handle.id, times=2)
    assert len(upstream.nudged) == 2


async def test_what_is_replayed_is_told_once_however_often(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    """Without a cache each step begins with a replay of all that was before, and ends with an eviction."""
    async with worker(client, WakelinePlugin(served.url), max_cached_workflows=0) as queue:
        handle = await start(client, queue)
        await upstream.until_nudged(handle.id)
        for step in range(3):
            await handle.signal("step")
            await upstream.until_nudged(handle.id, times=step + 2)
        assert await handle.query("count") == 3
        assert await end(handle) == 3
        await upstream.until_nudged(handle.id, times=5)
        history = await handle.fetch_history()
    assert len(upstream.nudged) == 5
    await Replayer(workflows=[Steps], plugins=[WakelinePlugin(served.url)]).replay_workflow(history)
    assert len(upstream.nudged) == 5


async def test_a_history_that_ends_in_the_middle_is_replayed_in_silence(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        handle = await start(client, queue)
        await upstream.until_nudged(handle.id)
        whole = await handle.fetch_history()
        history = replace(whole, events=whole.events[:-1])  # without the end of its workflow task
        await Replayer(workflows=[Steps], plugins=[WakelinePlugin(served.url)]).replay_workflow(history)
        assert len(upstream.nudged) == 1
        await end(handle)
        await upstream.until_nudged(handle.id, times=2)
    assert len(upstream.nudged) == 2


@pytest.mark.parametrize("activity", ["publish", "publish_in_a_thread"])
async def test_a_flush_in_an_activity_is_told(
    client: Client, upstream: RecordingUpstream, served: Served, activity: str
) -> None:
    """To a stream that no worker hosts: what is told is the flush, not a step."""
    async with worker(client, WakelinePlugin(served.url, report=None)) as queue:
        host = await client.start_workflow("Nobody", id=name(), task_queue=name())
        asks = await client.start_workflow(Asks.run, args=[activity, host.id], id=name(), task_queue=queue)
        async with asyncio.timeout(PATIENCE):
            await asks.result()
        await host.terminate()
        told = host.id if activity == "publish" else asks.id
        await upstream.until_nudged(told, times=1 if activity == "publish" else 3)
    count = [id for id, _ in upstream.nudged].count(told)
    assert count == 1 if activity == "publish" else count >= 3


async def test_whoever_else_publishes_through_temporal_may_nudge(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    told: list[str] = []
    host = await client.start_workflow("Nobody", id=name(), task_queue=name())
    async with WorkflowStreamClient.create(client, host.id, on_flushed=told.append) as stream:
        stream.topic("note").publish("x")
    assert told == [host.id]
    await host.terminate()


async def test_it_can_be_turned_off(client: Client, upstream: RecordingUpstream, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url, nudge=False)) as queue:
        handle = await start(client, queue)
        asks = await client.start_workflow(Asks.run, args=["publish", handle.id], id=name(), task_queue=queue)
        async with asyncio.timeout(PATIENCE):
            await asks.result()
        await end(handle)
    assert upstream.nudged == []


async def test_the_sandbox_goes_on_to_guard_workflows(client: Client, served: Served) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue, asyncio.timeout(PATIENCE):
        cheats = await start(client, queue, Cheats)
        assert await cheats.result() == "RestrictedWorkflowAccessError"


# What goes wrong with the gateway is no business of the workflows.


async def steps_in(client: Client, plugin: WakelinePlugin) -> None:
    """A worker's life: workflows that take steps and end, each within the time it takes without a gateway."""
    async with asyncio.timeout(PATIENCE), worker(client, plugin) as queue:
        handles = [await start(client, queue) for _ in range(5)]
        for handle in handles:
            for _ in range(3):
                await handle.signal("step")
        assert [await end(handle) for handle in handles] == [3] * 5


async def test_a_gateway_that_is_away_is_no_business_of_the_workflows(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "wakeline"):
        async with (
            asyncio.timeout(PATIENCE),
            worker(client, WakelinePlugin(f"http://127.0.0.1:{free_port()}")) as queue,
        ):
            handle = await start(client, queue)
            await handle.signal("step")

            def warnings() -> list[str]:
                return [record.message for record in caplog.records if "is retried" in record.message]

            while not warnings():
                await asyncio.sleep(0.1)
            for _ in range(2):
                await handle.signal("step")
            assert await end(handle) == 3
    assert len(warnings()) == 1


async def test_nor_is_one_that_never_answers(client: Client) -> None:
    async with silent() as url:
        await steps_in(client, WakelinePlugin(url, report=None))


@pytest.mark.parametrize("refused", [{"allow": ["read"]}, {"exp": 1}])
async def test_nor_is_a_token_that_is_refused(
    client: Client,
    upstream: RecordingUpstream,
    serve: Any,
    caplog: pytest.LogCaptureFixture,
    refused: dict[str, Any],
) -> None:
    served = await serve(token_secret=SECRET)
    with caplog.at_level(logging.WARNING, "wakeline"):
        await steps_in(client, WakelinePlugin(served.url, token(**refused), report=None))
    assert upstream.nudged == []
    assert len([record for record in caplog.records if "refuses nudges" in record.message]) == 1


async def test_a_worker_that_stops_with_nudges_under_way_sends_them_first(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    async with worker(client, WakelinePlugin(served.url)) as queue:
        handles = [await start(client, queue) for _ in range(10)]
        results = await asyncio.gather(*(end(handle) for handle in handles))
    assert results == [0] * 10
    for handle in handles:
        await upstream.until_nudged(handle.id)


async def test_a_worker_that_stops_waits_until_what_its_workflows_said_last_is_read(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    upstream.ends_in = 0.2
    async with worker(client, WakelinePlugin(served.url)) as queue:
        ended, goes_on = await start(client, queue), await start(client, queue)
        await upstream.until_nudged(goes_on.id)
        await end(ended)
    assert upstream.are_over == [(ended.id, client.namespace)]
    await goes_on.terminate()


async def test_who_gives_up_waiting_has_asked_for_the_end_all_the_same(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    upstream.ends_in = 60
    queue = f"nudges-{uuid.uuid4().hex[:8]}"
    running = Worker(client, task_queue=queue, workflows=[Steps], plugins=[WakelinePlugin(served.url)])
    async with asyncio.TaskGroup() as group:
        run = group.create_task(running.run())
        await end(await start(client, queue))
        stopping = asyncio.create_task(running.shutdown())
        async with asyncio.timeout(PATIENCE):
            while not upstream.waited_for:
                await asyncio.sleep(0.002)
            stopping.cancel()
            await run
    assert upstream.are_over == []


async def test_workflows_of_a_worker_that_starts_again_go_on(
    client: Client, upstream: RecordingUpstream, served: Served
) -> None:
    handle = None
    for _ in range(2):
        async with worker(client, WakelinePlugin(served.url)) as queue:
            handle = await start(client, queue)
            await upstream.until_nudged(handle.id)
            await end(handle)
    assert handle is not None
    with pytest.raises(RPCError):
        await handle.signal("step")
