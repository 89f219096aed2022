"""A workflow that publishes at a fixed pace and bounds its log."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from wakeline.streams import WorkflowStream

TICKS = 25
KEPT = 5


@workflow.defn
class TickerWorkflow:
    """Publishes five ticks at a time and keeps the last five."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> str:
        """Tick."""
        ticks = self.stream.topic("tick", type=int)
        for tick in range(TICKS):
            ticks.publish(tick)
            if (tick + 1) % KEPT == 0:
                self.stream.truncate(tick + 1 - KEPT)
                await workflow.sleep(timedelta(milliseconds=500))
        return f"{TICKS} ticks, the last {KEPT} kept"
