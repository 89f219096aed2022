"""When a reader asks: as soon as the history tells that there may be something, and hardly ever otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import read, start, worker
from wakeline.streams import WorkflowStreamClient, pace, runs
from wakeline.temporal import history
from wakeline.temporal.queries import when_not_busy


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


@pytest.fixture
def told_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks unasked, so that what is not told is not read."""
    monkeypatch.setattr(pace, "_LONGEST_FOLLOWED", 1e9)


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many queries readers have sent."""
    asked = 0

    async def count(query: Any, seconds: float) -> Any:
        nonlocal asked
        asked += 1
        return await when_not_busy(query, seconds)

    monkeypatch.setattr("wakeline.streams.runs.when_not_busy", count)
    return lambda: asked


def data(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


async def test_a_query_for_each_batch_and_none_in_silence(
    client: Client, queue: str, told_only: None, questions: Callable[[], int]
) -> None:
    handle = await start(client, queue, hosts.Hub)
    reader = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe(), 20))
    await asyncio.sleep(1)
    before = questions()
    for number in range(20):
        await handle.signal("say", args=["n", [number]])
        await asyncio.sleep(0.1)
    assert data(await reader) == list(range(20))
    # A signal and the task it begins are told together, mostly.
    assert questions() - before <= 40
    idle = asyncio.ensure_future(anext(WorkflowStreamClient.create(client, handle.id).subscribe(from_offset=20)))
    async with asyncio.timeout(60):  # on a busy machine the first questions take a while
        before = -1
        while questions() != before:
            before = questions()
            await asyncio.sleep(0.5)
    await handle.signal("say", args=["n", ["at last"]])
    assert (await idle).data == "at last"
    await handle.terminate()


async def test_what_the_workflow_publishes_by_itself_is_told(client: Client, queue: str, told_only: None) -> None:
    handle = await start(client, queue, hosts.Ticking, 4)
    late = []
    async for item in WorkflowStreamClient.create(client, handle.id).subscribe():
        late.append((item.data, time.monotonic()))
    assert [number for number, _ in late] == list(range(4))
    # One by one, not all at the end.
    assert late[-1][1] - late[0][1] > 0.5


async def test_a_long_history_is_not_followed(client: Client, queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_MOST_BYTES", 0)
    handle = await start(client, queue, hosts.Hub)
    reader = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe()))
    for number in range(10):
        await handle.signal("say", args=["n", [number]])
        await asyncio.sleep(0.1)
    await handle.signal("close")
    assert data(await reader) == list(range(10))


async def test_who_is_told_no_more_asks_by_itself(
    client: Client, queue: str, told_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = asyncio.Event()

    async def break_off(run: runs.Run) -> None:
        run.tells = True
        if not following.is_set():
            following.set()
            await asyncio.sleep(0.5)
        raise RPCError("connection lost", RPCStatusCode.UNAVAILABLE, b"")

    monkeypatch.setattr(runs.Run, "_follow", break_off)
    handle = await start(client, queue, hosts.Hub)
    items = WorkflowStreamClient.create(client, handle.id).subscribe()
    first = asyncio.ensure_future(anext(items))
    await following.wait()
    # Nobody tells of this one.
    await handle.signal("say", args=["n", [1]])
    async with asyncio.timeout(60):
        assert (await first).data == 1
    await handle.terminate()


@pytest.mark.parametrize("cooldown", [0, 50])
async def test_every_cooldown_reads_everything(client: Client, queue: str, cooldown: int) -> None:
    handle = await start(client, queue, hosts.Ticking, 3)
    stream = WorkflowStreamClient.create(client, handle.id)
    assert data(await read(stream.subscribe(poll_cooldown=timedelta(milliseconds=cooldown)))) == [0, 1, 2]
