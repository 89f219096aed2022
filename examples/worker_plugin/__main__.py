"""A worker whose activities tell how they go, with no code for it. Run it by `python -m examples.worker_plugin`."""

from __future__ import annotations

import logging

from temporalio.worker import Worker

from examples.live import Live, LiveExample, main
from examples.worker_plugin.workflows import OrderWorkflow, charge, pack
from wakeline.client import SessionClient
from wakeline.integrations.temporal import WakelinePlugin

EXPECTED = """
charge, attempt 1: started
charge, attempt 1: retrying, the bank hung up
charge, attempt 2: started
charge, attempt 2: completed
pack, attempt 1: started
packed: book
packed: pen
pack, attempt 1: completed
the workflow: charge-order-1
"""


async def play(live: Live) -> None:
    """Run an order whose first charge fails, then show what its session has."""
    assert live.temporal is not None
    logging.getLogger("temporalio").setLevel(logging.ERROR)  # an activity that fails on purpose is not news
    worker = Worker(
        live.temporal,
        task_queue="orders",
        workflows=[OrderWorkflow],
        activities=[charge, pack],
        plugins=[WakelinePlugin(live.url)],
    )
    async with worker:
        charged = await live.temporal.execute_workflow(OrderWorkflow.run, "order-1", id="order-1", task_queue="orders")
    async with SessionClient(live.url) as client:
        for event in (await client.session("order-1").page()).events:
            told = event.data
            if event.topic == "activity":
                why = f", {told['failure']['message']}" if "failure" in told else ""
                live.show(f"{told['activity_type']}, attempt {told['attempt']}: {told['state']}{why}")
            elif event.topic == "status":
                live.show(f"packed: {told['packed']}")
    live.show("the workflow:", charged)


EXAMPLE = LiveExample("worker_plugin", play, (), EXPECTED, needs_temporal=True)

if __name__ == "__main__":
    main(EXAMPLE)
