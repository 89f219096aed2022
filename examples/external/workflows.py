"""A workflow that does nothing but host a stream."""

from __future__ import annotations

from temporalio import workflow

from wakeline.streams import WorkflowStream


@workflow.defn
class HubWorkflow:
    """Hosts a stream until it is closed."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()
        self.closed = False

    @workflow.run
    async def run(self) -> None:
        """Wait to be closed."""
        await workflow.wait_condition(lambda: self.closed)

    @workflow.signal
    def close(self) -> None:
        """End the run."""
        self.closed = True
