"""A workflow that continues as new after every few items. Its subscriber sees one stream."""

from __future__ import annotations

import uuid

from temporalio.client import Client

from examples.rollover.workflows import ITEMS, ITEMS_PER_RUN, BatchInput, BatchWorkflow
from examples.stage import Example, expect
from wakeline.streams import WorkflowStreamClient

EXPECTED = "\n".join(
    [
        *(f"offset={n:2} processed item {n} in run {n // ITEMS_PER_RUN + 1}" for n in range(ITEMS)),
        f"workflow result: {ITEMS} items in {ITEMS // ITEMS_PER_RUN} runs",
    ]
)


async def play(client: Client, queue: str) -> None:
    """Print what is processed, in all runs."""
    handle = await client.start_workflow(
        BatchWorkflow.run, BatchInput(), id=f"batch-{uuid.uuid4().hex[:8]}", task_queue=queue
    )
    async for item in WorkflowStreamClient.create(client, handle.id).subscribe("item", result_type=str):
        print(f"offset={item.offset:2} {item.data}")
    print(f"workflow result: {await handle.result()}")


EXAMPLE = Example("rollover", play, lambda lines: expect(lines, EXPECTED), [BatchWorkflow])
