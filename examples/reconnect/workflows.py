"""A pipeline of several stages."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from wakeline.streams import WorkflowStream

STAGES = ["validating", "loading data", "transforming", "writing output", "verifying", "complete"]


@workflow.defn
class PipelineWorkflow:
    """Publishes each stage as it begins."""

    @workflow.init
    def __init__(self) -> None:
        self.stages = WorkflowStream().topic("stage", type=str)

    @workflow.run
    async def run(self) -> str:
        """Go through the stages."""
        for stage in STAGES:
            self.stages.publish(stage)
            await workflow.sleep(timedelta(milliseconds=500))
        return f"pipeline {workflow.info().workflow_id} done"
