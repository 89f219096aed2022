"""A long stream has readers to the end: the host rolls over and over, nothing of a run is used up, nothing grows.

`WAKELINE_STREAM_SECONDS=3600 pytest -s tests/faults/test_stream_for_an_hour.py` is the whole hour; it prints how far it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import Worker

from tests.faults.stream_readers import CLIENT_OF_READER, event
from tests.soak import times
from tests.temporal.streams_limits_workflows import Enduring, EnduringInput
from tests.temporal.streams_support import PATIENCE, Handle, queue_name, start
from wakeline.streams import WorkflowStreamClient, stream

SECONDS = float(os.environ.get("WAKELINE_STREAM_SECONDS") or times(5, 10))
EVENTS_A_SECOND = 20
INTERVAL = timedelta(milliseconds=200)
ROOT = Path(__file__).parents[2]


async def publish(client: Client, workflow_id: str) -> int:
    """Publish for as long as is wanted, at a steady pace; how many it were."""
    stream = WorkflowStreamClient.create(client, workflow_id, batch_interval=INTERVAL)
    numbers = stream.topic("n")
    count = int(SECONDS * EVENTS_A_SECOND)
    begun = time.monotonic()
    async with stream:
        for number in range(count):
            await asyncio.sleep(begun + number / EVENTS_A_SECOND - time.monotonic())
            numbers.publish({**event(number), "published": time.monotonic()})
    return count


async def histories(client: Client, handle: Handle) -> list[Counter[int]]:
    """How many events of each type are in the history of each run."""
    runs: list[Counter[int]] = []
    run_id = handle.first_execution_run_id or ""
    while run_id:
        types: Counter[int] = Counter()
        run = client.get_workflow_handle(handle.id, run_id=run_id)
        async for told in run.fetch_history_events():
            types[told.event_type] += 1
            run_id = told.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        runs.append(types)
    return runs


@pytest.mark.timeout(480 + SECONDS + 2 * PATIENCE)
async def test_a_stream_has_readers_to_the_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    if SECONDS < 600:
        # A short stream rolls too: about five times, and on a machine that makes few batches of it at least once.
        monkeypatch.setattr(stream, "_SIGNALS_SUGGESTED", int(SECONDS))
    queue = queue_name()
    async with Worker(client, task_queue=queue, workflows=[Enduring]):
        handle = await start(client, queue, Enduring, EnduringInput())
        address = client.service_client.config.target_host
        readers = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.stream_readers", address, client.namespace, handle.id),
            cwd=ROOT,
            stdout=PIPE,
        )
        try:
            reports: list[dict[str, Any]] = []

            async def follow() -> None:
                assert readers.stdout
                async for line in readers.stdout:
                    reports.append(json.loads(line))
                    print(line.decode(), end="", flush=True)

            following = asyncio.create_task(follow())
            published = await publish(client, handle.id)
            latest = client.get_workflow_handle(handle.id)
            await latest.signal(Enduring.finish)
            async with asyncio.timeout(PATIENCE):
                runs = await latest.result()
                await following
                assert await readers.wait() == 0
        finally:
            if readers.returncode is None:
                readers.kill()
                await readers.wait()
    told = await histories(client, handle)
    updates = sum(types[EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED] for types in told)
    signals = [types[EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED] for types in told]
    lengths = [types.total() for types in told]
    print(f"published {published} events in {sum(signals)} signals, {runs} runs of up to {max(lengths)} history events")
    first, last = reports[0], reports[-1]
    assert last["seen"] == [published] * len(CLIENT_OF_READER)
    assert last["ends"] == [["COMPLETED", True]] * len(CLIENT_OF_READER)
    assert (last["gaps"], updates) == (0, 0)
    assert len(told) == runs >= (2 if SECONDS < 600 else 3)
    assert last["resident_megabytes"] < first["resident_megabytes"] + 60
