"""A workflow with two activities; one of them says something, the other nothing at all."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

from wakeline.integrations.temporal import current_session

_SOON = RetryPolicy(initial_interval=timedelta(milliseconds=100))


@activity.defn
async def charge(order: str) -> str:
    """Fails at first. Its retry is told although there is no code for that."""
    if activity.info().attempt == 1:
        raise ConnectionError("the bank hung up")
    return f"charge-{order}"


@activity.defn
async def pack(order: str) -> None:
    """Tells what it packs."""
    status = (await current_session()).topic("status")
    for item in ["book", "pen"]:
        await status.publish({"order": order, "packed": item})


@workflow.defn
class OrderWorkflow:
    """Charges, then packs."""

    @workflow.run
    async def run(self, order: str) -> str:
        """Take the order."""
        timeout = timedelta(seconds=30)
        charged: str = await workflow.execute_activity(
            charge, order, start_to_close_timeout=timeout, retry_policy=_SOON
        )
        await workflow.execute_activity(pack, order, start_to_close_timeout=timeout)
        return charged
