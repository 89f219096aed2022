"""When a reader asks: as soon as the history tells that there may be something, and hardly ever otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import read, start, worker
from wakeline.streams import WorkflowStreamClient, pace, runs
from wakeline.streams.wire import OFFSET_QUERY
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


class Questions:
    """How many queries readers have sent."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0

    async def count(self, query: Any, seconds: float) -> Any:
        self.asked += 1
        try:
            return await when_not_busy(query, seconds)
        finally:
            self.answered += 1

    async def quiet_after(self, asked: int) -> None:
        """Return when there was another query than these, and none any more for a second."""
        async with asyncio.timeout(60):
            before = -1
            while self.asked <= asked or not before == self.asked == self.answered:
                before = self.asked
                await asyncio.sleep(1)


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    counted = Questions()
    monkeypatch.setattr("wakeline.streams.runs.when_not_busy", counted.count)
    return counted


def data(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


async def test_a_query_for_each_batch_and_none_in_silence(
    client: Client, queue: str, told_only: None, questions: Questions
) -> None:
    handle = await start(client, queue, hosts.Hub)
    reader = asyncio.create_task(read(WorkflowStreamClient.create(client, handle.id).subscribe(), 20))
    await questions.quiet_after(0)
    before = questions.asked
    for number in range(20):
        await handle.signal("say", args=["n", [number]])
        await asyncio.sleep(0.1)
    assert data(await reader) == list(range(20))
    # A signal and the task it begins are told together, mostly.
    assert questions.asked - before <= 40
    before = questions.asked
    idle = asyncio.ensure_future(anext(WorkflowStreamClient.create(client, handle.id).subscribe(from_offset=20)))
    await questions.quiet_after(before)
    await handle.signal("say", args=["n", ["at last"]])
    assert (await idle).data == "at last"
    await handle.terminate()


async def test_what_the_workflow_publishes_by_itself_is_told(client: Client, queue: str, told_only: None) -> None:
    handle = await start(client, queue, hosts.Ticking, 100_000)
    items = WorkflowStreamClient.create(client, handle.id).subscribe()
    read_so_far: list[int] = []
    for _ in range(3):
        # What is published from here on was not there when the reader asked last.
        published: int = await handle.query(OFFSET_QUERY, result_type=int)
        async with asyncio.timeout(60):
            while len(read_so_far) <= published:
                read_so_far.append((await anext(items)).data)
    assert read_so_far == list(range(len(read_so_far)))
    await handle.terminate()


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
