"""Runs that end in parallel while faults happen: each has exactly one `$run.closed`."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from tests.temporal import run_workflows as workflows
from wakeline.client import SessionClient

AT_ONCE = 6
SESSION = "runs"


class Ends:
    """Runs of one session, which any of the gateways follows.

    Args:
        client: Temporal.
        urls: The gateways.
        headers: Of their requests.
    """

    def __init__(self, client: Client, urls: Sequence[str], headers: dict[str, str]) -> None:
        self._client = client
        self._urls = urls
        self._headers = headers
        self._queue = f"ends-{uuid.uuid4().hex[:8]}"
        self._chance = random.Random(3)
        self.runs: list[str] = []

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Run the workflows."""
        async with Worker(self._client, task_queue=self._queue, workflows=[workflows.Steps]):
            yield

    async def round(self) -> None:
        """Start some runs, have them followed, and end them all at once."""
        handles = await asyncio.gather(*(self._start() for _ in range(AT_ONCE)))
        await asyncio.gather(*(self._end(place, handle) for place, handle in enumerate(handles)))

    async def _start(self) -> WorkflowHandle[workflows.Steps, dict[str, int]]:
        name = f"{self._queue}-{uuid.uuid4().hex[:8]}"
        handle = await self._client.start_workflow(workflows.Steps.run, id=name, task_queue=self._queue)
        self.runs.append(str(handle.first_execution_run_id))
        async with aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(5)) as http:
            while True:
                with suppress(aiohttp.ClientError, TimeoutError):
                    body = {"workflow_id": name, "session": SESSION}
                    async with http.post(f"{self._chance.choice(self._urls)}/v1/runs", json=body) as answer:
                        if answer.status in (200, 201):
                            return handle
                        assert answer.status in (409, 503), await answer.text()
                await asyncio.sleep(0.1)

    async def _end(self, place: int, handle: WorkflowHandle[workflows.Steps, dict[str, int]]) -> None:
        if place % 2:
            await handle.terminate()
        else:
            await handle.signal(workflows.Steps.step, "end")

    async def check(self, client: SessionClient) -> None:
        """Hold the session against the runs: wait until it has their ends, and count those."""
        closed: Counter[str | None] = Counter()
        settled = ""
        async with asyncio.timeout(180):
            async for event in client.session(SESSION).events():
                closed.update([event.run] if event.topic == "$run.closed" else [])
                settled = event.topic if event.topic != "$run.drained" else settled
                if closed.keys() >= set(self.runs) and settled == "$session.settled":
                    break
        assert closed == Counter(self.runs), "each run has exactly one end"
