"""The watch of one run: what wakes who waits for news of it, and that who waits can be stopped at any moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.service import RPCError, RPCStatusCode

from wakeline.gateway.following.following import Limits
from wakeline.gateway.following.watching.attention import Attention
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.reaching.connection import Connection, Options
from wakeline.gateway.sessions import Run

RUN = Run("chat", "run", "run", "run", "Chat", "2026-11-21T05:14:43.123Z")


def watch_of(attention: Attention | None = None, connection: Any = None) -> RunWatch:
    async def child(*_: Any) -> None:
        raise AssertionError("expected no children")

    parts = SimpleNamespace(limits=Limits(looks=1), child=child)
    there = connection or SimpleNamespace(namespace="")
    subject = SimpleNamespace(parts=parts, run=RUN, connection=there)
    return RunWatch(cast(Any, subject), RUN.run_id, attention or Attention())


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("after", range(5))
async def test_who_waits_for_news_can_be_stopped_while_they_come(after: int) -> None:
    watch = watch_of()

    async def read_on() -> None:
        while True:
            await watch.news(watch.happened, 3600)

    reading = asyncio.create_task(read_on())
    await steps(3)
    watch.nudge()
    await steps(after)
    reading.cancel()
    await steps(20)
    stopped = reading.done()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert stopped


async def test_a_call_goes_on_to_its_end_where_its_caller_is_stopped() -> None:
    connection = Connection(Options(address="127.0.0.1:1"))
    answer, answered = asyncio.Event(), asyncio.Event()

    async def query() -> str:
        await answer.wait()
        answered.set()
        return "answer"

    asking = asyncio.create_task(connection.to_its_end(query()))
    await steps(3)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    answer.set()
    await asyncio.wait_for(answered.wait(), 60)
    assert await connection.to_its_end(query()) == "answer"


def test_a_stream_was_read_whole_if_it_was_asked_for_after_the_last_task_began() -> None:
    watch = watch_of()
    assert not watch.read_whole
    watch._whole, watch.history.scheduled = True, 12
    for read, whole in ((0, False), (7, False), (12, True)):
        watch.read = read
        assert watch.read_whole == whole
    watch._whole = False
    assert not watch.read_whole


class Temporal:
    """Has one run, in whose history nothing more happens; asked for that it fails when it is told to."""

    def __init__(self) -> None:
        self.client, self.namespace = self, "default"
        self.current_page: list[Any] = []
        self.next_page_token = b"more"
        self.failing = asyncio.Event()
        self.described = 0

    async def until_calm(self) -> None:
        pass

    def up(self) -> bool:
        return True

    def get_workflow_handle(self, workflow_id: str, run_id: str) -> Temporal:
        return self

    async def describe(self, **_: Any) -> Any:
        self.described += 1
        info = WorkflowExecutionInfo(status=WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING, history_length=3)
        return SimpleNamespace(raw_description=SimpleNamespace(workflow_execution_info=info))

    def fetch_history_events(self, **_: Any) -> Temporal:
        return self

    async def fetch_next_page(self) -> None:
        await self.failing.wait()
        raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")


@pytest.mark.parametrize("why", ["watched less closely", "the history is not told any more"])
async def test_who_counts_on_being_told_looks_when_nothing_is_told_any_more(why: str) -> None:
    temporal, attention = Temporal(), Attention()
    attention.set(closely=True)
    watch = watch_of(attention, temporal)
    watching = asyncio.create_task(watch.ended())
    try:
        await steps(20)
        assert watch.tells
        waiting = asyncio.create_task(watch.news(watch.happened, 3600))
        await steps(5)
        assert not waiting.done()
        if why == "watched less closely":
            attention.set(closely=False)
        else:
            temporal.failing.set()
        await steps(20)
        assert waiting.done()
        assert not watch.tells
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
