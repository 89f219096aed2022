"""A workflow of many runs with one stream."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import workflow

from wakeline.streams import WorkflowStream, WorkflowStreamState

ITEMS = 12
ITEMS_PER_RUN = 4


@dataclass
class BatchInput:
    """How far it has come, and the stream so far."""

    next_item: int = 0
    run: int = 1
    stream_state: WorkflowStreamState | None = None


@workflow.defn
class BatchWorkflow:
    """Processes items, a few a run."""

    @workflow.init
    def __init__(self, input: BatchInput) -> None:
        self.stream = WorkflowStream(prior_state=input.stream_state)

    @workflow.run
    async def run(self, input: BatchInput) -> str:
        """Process the next items, then continue as new with the stream."""
        items = self.stream.topic("item", type=str)
        done = min(input.next_item + ITEMS_PER_RUN, ITEMS)
        for item in range(input.next_item, done):
            items.publish(f"processed item {item} in run {input.run}")
        # A workflow that does not know how many fit a run asks `self.stream.continue_as_new_suggested` instead.
        if done < ITEMS:
            await self.stream.continue_as_new(lambda state: [BatchInput(done, input.run + 1, state)])
        return f"{ITEMS} items in {input.run} runs"
