"""A parent with children, one of which speaks elsewhere."""

from __future__ import annotations

from temporalio import workflow

from wakeline.streams import WorkflowStream


@workflow.defn
class Parent:
    """Starts two children and waits for them."""

    @workflow.run
    async def run(self) -> None:
        own = workflow.info().workflow_id
        joins = await workflow.start_child_workflow(Joins.run, id=f"{own}-joins")
        stays = await workflow.start_child_workflow(
            Joins.run, id=f"{own}-stays", memo={"wakeline.session": f"{own}-own"}
        )
        await joins
        await stays


@workflow.defn
class Joins:
    """Says one thing, and has a child of its own if it is the parent's first."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        own = workflow.info().workflow_id
        self.stream.topic("said", type=str).publish(own)
        if own.endswith("-joins"):
            await workflow.execute_child_workflow(Joins.run, id=f"{own}-too")
