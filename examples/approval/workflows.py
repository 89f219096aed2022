"""An agent that pays only what somebody has approved."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from wakeline.publisher import SessionPublisher


class Agent:
    """The activities of the agent.

    Args:
        url: The gateway's URL.
        token: A token that may publish.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    @activity.defn
    async def pay(self, order: str) -> str:
        """Ask for an approval, and pay if it is given."""
        async with SessionPublisher.from_within_activity(self._url, self._token) as session:
            status = session.topic("status", type=str)
            await status.publish(f"the agent wants to pay {order}")
            request = await session.request(
                "approval",
                id=f"pay-{order}",  # a retry of this activity asks the same question, and receives its answer
                message="Pay 12 EUR to ACME?",
                choices=["approve", "reject"],
                expires=timedelta(minutes=10),
                audience="ada",
            )
            outcome = await request.outcome()
            approved = outcome is not None and outcome.status == "resolved" and outcome.payload == "approve"
            await status.publish(f"{order} is {'paid' if approved else 'not paid'}")
            return "paid" if approved else "not paid"


@workflow.defn
class PaymentWorkflow:
    """Has an order paid."""

    @workflow.run
    async def run(self, order: str, agents: str) -> str:
        """Have the agents on the task queue `agents` pay an order."""
        result: str = await workflow.execute_activity(
            "pay", order, task_queue=agents, start_to_close_timeout=timedelta(minutes=15)
        )
        return result
