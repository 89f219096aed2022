"""An order with two topics of different types: the workflow publishes `status`, its activity `progress`."""

from __future__ import annotations

import uuid

from temporalio.client import Client
from temporalio.common import RawValue

from examples.order.workflows import OrderWorkflow, Progress, Status, charge_card
from examples.stage import Example, expect
from wakeline.streams import WorkflowStreamClient

EXPECTED = """
[status] received: order=order-1
[progress] charging card...
[progress] card charged
[status] shipped: order=order-1
[progress] charge id: charge-order-1
[status] complete: order=order-1
workflow result: charge-order-1
"""


async def play(client: Client, queue: str) -> None:
    """Start an order and print what it says, each topic decoded as its own type."""
    handle = await client.start_workflow(
        OrderWorkflow.run, "order-1", id=f"order-{uuid.uuid4().hex[:8]}", task_queue=queue
    )
    stream = WorkflowStreamClient.create(client, handle.id)
    converter = client.data_converter.payload_converter
    async for item in stream.subscribe(["status", "progress"], result_type=RawValue):
        if item.topic == "status":
            status = converter.from_payload(item.data.payload, Status)
            print(f"[status] {status.kind}: order={status.order}")
        else:
            progress = converter.from_payload(item.data.payload, Progress)
            print(f"[progress] {progress.message}")
    print(f"workflow result: {await handle.result()}")


EXAMPLE = Example("order", play, lambda lines: expect(lines, EXPECTED), [OrderWorkflow], [charge_card])
