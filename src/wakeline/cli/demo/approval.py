"""The activity that asks the devices for an approval, and waits for the first answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from temporalio import activity

from wakeline.publisher import SessionPublisher

QUESTION: Final = "Pay 12 EUR to ACME?"
APPROVE: Final = "approve"
REJECT: Final = "reject"


class Approvals:
    """Asks in the session of the workflow whose activity it is.

    Args:
        url: The gateway's URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @activity.defn
    async def approve_payment(self) -> bool:
        """Ask whether to pay; return whether that was approved."""
        async with SessionPublisher.from_within_activity(self._url) as session:
            # A retry of this activity asks under the same id, so it receives the same request, and its answer.
            request = await session.request("approval", id="pay", message=QUESTION, choices=[APPROVE, REJECT])
            while (outcome := await request.outcome(wait=timedelta(seconds=2))) is None:
                activity.heartbeat()  # the answer to a heartbeat says that the workflow was terminated
            return bool(outcome.payload == APPROVE)
