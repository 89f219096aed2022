"""What the tests of streams share: a worker with all workflows, a way to start one, a way to read."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from tests.temporal import streams_following_workflows as following
from tests.temporal import streams_workflows as hosts

Handle = WorkflowHandle[Any, Any]

# Far above what anything here takes: the tests tell order and loss, not time.
PATIENCE = 60


def queue_name() -> str:
    """A task queue that nobody has."""
    return f"streams-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def worker(client: Client, queue: str = "") -> AsyncIterator[str]:
    """A worker in the default sandbox; gives its task queue."""
    queue = queue or queue_name()
    workflows = [*hosts.ALL, *following.ALL]
    async with Worker(client, task_queue=queue, workflows=workflows, activities=[hosts.charge]):
        yield queue


async def start(client: Client, queue: str, workflow: Any, *args: Any, **options: Any) -> Handle:
    """Start a workflow under an id of its own."""
    name = f"{workflow.__name__}-{uuid.uuid4().hex[:8]}"
    handle: Handle = await client.start_workflow(workflow.run, args=args, id=name, task_queue=queue, **options)
    return handle


async def read(items: AsyncIterator[Any], count: int | None = None) -> list[Any]:
    """The next `count` items, or all to the end."""
    taken: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        if count == 0:
            return taken
        async for item in items:
            taken.append(item)
            if len(taken) == count:
                break
    return taken
