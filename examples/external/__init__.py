"""A process that is no activity publishes into a hub workflow; a subscriber reads beside it until the hub closes."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

from temporalio.client import Client

from examples.external.workflows import HubWorkflow
from examples.stage import Example, expect
from wakeline.streams import StreamEnd, WorkflowStreamClient

EXPECTED = """
[news] 0: markets open higher
[news] 1: rain expected by noon
[news] 2: local team wins
the hub completed, everything was read: True
"""
HEADLINES = ["markets open higher", "rain expected by noon", "local team wins"]


async def publish(client: Client, workflow_id: str) -> None:
    """What a backend service or a scheduled job would do."""
    async with WorkflowStreamClient.create(client, workflow_id, batch_interval=timedelta(milliseconds=100)) as stream:
        news = stream.topic("news", type=str)
        for headline in HEADLINES:
            news.publish(headline)
            await asyncio.sleep(0.2)


async def subscribe(client: Client, workflow_id: str) -> None:
    """Print until the hub closes, then how it did."""

    def tell(end: StreamEnd) -> None:
        print(f"the hub {end.status.name.lower()}, everything was read: {end.drained}")

    stream = WorkflowStreamClient.create(client, workflow_id)
    async for item in stream.subscribe("news", result_type=str, on_end=tell):
        print(f"[{item.topic}] {item.offset}: {item.data}")


async def play(client: Client, queue: str) -> None:
    """Start the hub, publish into it, close it."""
    handle = await client.start_workflow(HubWorkflow.run, id=f"hub-{uuid.uuid4().hex[:8]}", task_queue=queue)
    subscriber = asyncio.create_task(subscribe(client, handle.id))
    await publish(client, handle.id)
    await handle.signal(HubWorkflow.close)
    await subscriber


EXAMPLE = Example("external", play, lambda lines: expect(lines, EXPECTED), [HubWorkflow])
