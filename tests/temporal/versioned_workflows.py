"""A workflow of two worker versions, which upgrades when it continues as new, and some that stay on their version."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import VersioningBehavior
from temporalio.workflow import ContinueAsNewVersioningBehavior

with workflow.unsafe.imports_passed_through():
    from wakeline.streams import WorkflowStream, WorkflowStreamState


@workflow.defn(name="Versioned", versioning_behavior=VersioningBehavior.PINNED)
class First:
    """Stays on its version until it is signalled, then continues on the current one."""

    @workflow.init
    def __init__(self, state: WorkflowStreamState | None) -> None:
        self.stream = WorkflowStream(prior_state=state)
        self.upgrade = False

    @workflow.signal
    def go(self) -> None:
        self.upgrade = True

    @workflow.run
    async def run(self, state: WorkflowStreamState | None) -> None:
        self.stream.topic("version", type=str).publish("1.0")
        await workflow.wait_condition(lambda: self.upgrade)
        workflow.continue_as_new(
            self.stream.get_state(), initial_versioning_behavior=ContinueAsNewVersioningBehavior.AUTO_UPGRADE
        )


@workflow.defn(name="Versioned", versioning_behavior=VersioningBehavior.PINNED)
class Second:
    """Ends at once."""

    @workflow.init
    def __init__(self, state: WorkflowStreamState | None) -> None:
        self.stream = WorkflowStream(prior_state=state)

    @workflow.run
    async def run(self, state: WorkflowStreamState | None) -> None:
        self.stream.topic("version", type=str).publish("2.0")


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class Pinned:
    """Waits for a signal, and ends."""

    def __init__(self) -> None:
        self.signalled = False

    @workflow.signal
    def go(self) -> None:
        self.signalled = True

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.signalled)


@activity.defn
async def greet() -> None:
    """Do nothing."""


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class Delegating:
    """Has its activity done by the workers of another deployment."""

    @workflow.run
    async def run(self, queue: str) -> None:
        await workflow.execute_activity(greet, task_queue=queue, start_to_close_timeout=timedelta(minutes=5))
