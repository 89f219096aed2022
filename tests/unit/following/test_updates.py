"""Streams that are read by updates, beside those that are read by queries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from temporalio.client import WorkflowQueryFailedError
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from tests.unit.following.followed import Temporal, World, run
from wakeline.gateway.following.copying import reader as reading
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.following import Following, Limits, Subject
from wakeline.gateway.following.observing import Observer
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.log import NewSession
from wakeline.streams.wire import PollInput, PollResult, WireItem
from wakeline.temporal.refusals import OFFSET_QUERY

T = TypeVar("T")


class Handle:
    """A host of a stream with one item, by query; or a silent one that has the update only."""

    def __init__(self, workflow_id: str) -> None:
        self._silent = workflow_id == "silent"

    async def query(self, query: str, asked: PollInput, **_: Any) -> RawValue:
        if self._silent:
            raise WorkflowQueryFailedError(f"Query handler for {query} expected but not found, known: {OFFSET_QUERY}")
        items = [WireItem(topic="said", data="aGVsbG8=", offset=0)][asked.from_offset :]
        return RawValue(DataConverter.default.payload_converter.to_payload(PollResult(items=items, next_offset=1)))

    async def execute_update(self, *_: Any, **__: Any) -> RawValue:
        await asyncio.Event().wait()
        raise AssertionError("expected no answer")


class Hosts(Temporal):
    async def to_its_end(self, call: Awaitable[T]) -> T:
        return await call

    def get_workflow_handle(self, workflow_id: str, run_id: str | None = None) -> Any:
        return Handle(workflow_id)


async def test_hosts_that_wait_in_an_update_leave_the_reads_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "querying", lambda client: client)
    monkeypatch.setattr(reading, "_UPDATE_WAIT", 3600)
    world = World(monkeypatch)
    world.temporal = Hosts()
    parts = world.parts(limits=Limits(reads=1))
    tasks: list[asyncio.Task[None]] = []
    for session in ("silent", "silent", "speaking"):
        tasks.append(asyncio.create_task(_read(world, parts, session)))
        await asyncio.sleep(0.1)
    async with asyncio.timeout(60):
        while not (await world.engine.read("speaking", 0, before=1)).events:
            await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read(world: World, parts: Following, session: str) -> None:
    await world.engine.create_session(NewSession(session))
    observer = Observer(Subject(session, run(session), parts))
    reader = StreamReader(parts.namespaces.main, session, "run")
    try:
        await observer._read_on(reader, RunWatch(observer._subject, "run", observer.attention))
    finally:
        reader.stop()
