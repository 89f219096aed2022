"""Workflows that wait, are retried, are reset, have children and are started anew."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from wakeline.streams import WorkflowStream

SESSION = SearchAttributeKey.for_keyword("WakelineSession")

failures_left: dict[str, int] = {}
"""How often `fails_at_first` still fails, by Workflow Id."""


released: set[str | None] = set()
"""Workflow Ids whose `goes_on_when_told` goes on."""
mended: set[str] = set()
"""Workflow Ids of `Broken` whose code has been mended."""


@activity.defn
async def fails_at_first() -> None:
    name = activity.info().workflow_id or ""
    failures_left[name] = failures_left.get(name, 1) - 1
    if failures_left[name] >= 0:
        raise ApplicationError("no stock left", type="OutOfStock")


@activity.defn
async def goes_on_when_told() -> None:
    """Fails at first; its later attempts wait for the Workflow Id in `released`."""
    if activity.info().attempt == 1:
        raise ApplicationError("no stock left", type="OutOfStock")
    while activity.info().workflow_id not in released:
        activity.heartbeat()
        await asyncio.sleep(0.1)


@activity.defn
async def silent_at_first() -> None:
    """Sends one heartbeat, and is then not heard of; its second attempt ends at once."""
    if activity.info().attempt == 1:
        activity.heartbeat()
        await asyncio.sleep(60)


@workflow.defn
class Steps:
    """Publishes a step for each signal, until it is told to end."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()
        self.steps: list[str] = []
        self.done = 0

    @workflow.signal
    def step(self, name: str) -> None:
        self.steps.append(name)

    @workflow.run
    async def run(self) -> dict[str, int]:
        while True:
            await workflow.wait_condition(lambda: bool(self.steps))
            step = self.steps.pop(0)
            if step == "end":
                return {"steps": self.done}
            self.stream.topic("step", type=str).publish(step)
            self.done += 1


@workflow.defn
class Approval:
    """Does something, then waits for somebody's word."""

    def __init__(self) -> None:
        self.approved: bool | None = None

    @workflow.signal
    def approve(self) -> None:
        self.approved = True

    @workflow.run
    async def run(self, patience: float | None) -> bool:
        workflow.set_current_details("asks for 12 EUR")
        timeout = None if patience is None else timedelta(seconds=patience)
        try:
            await workflow.wait_condition(lambda: self.approved is not None, timeout=timeout)
        except TimeoutError:
            return False
        return True


@workflow.defn
class Turns:
    """Waits for a signal, and is busy in its next run."""

    def __init__(self) -> None:
        self.told = False

    @workflow.signal
    def go_on(self) -> None:
        self.told = True

    @workflow.run
    async def run(self, busy: bool) -> None:
        if not busy:
            await workflow.wait_condition(lambda: self.told)
            workflow.continue_as_new(True)
        await workflow.execute_activity(
            "anything", task_queue="nobody-polls-this", start_to_close_timeout=timedelta(seconds=60)
        )


@workflow.defn
class Sleeper:
    """Sleeps, and nobody can wake it."""

    @workflow.run
    async def run(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@workflow.defn
class Troubled:
    """Runs one activity that has trouble."""

    @workflow.run
    async def run(self, name: str, pause: float) -> None:
        await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=pause), backoff_coefficient=1),
        )


@workflow.defn
class Again:
    """Runs an activity under an id of its own choice, and once more under the same one with each signal."""

    def __init__(self) -> None:
        self.wanted = 1

    @workflow.signal
    def again(self) -> None:
        self.wanted += 1

    @workflow.run
    async def run(self, name: str, queue: str | None) -> None:
        while True:
            await workflow.wait_condition(lambda: self.wanted > 0)
            self.wanted -= 1
            await workflow.execute_activity(
                name,
                activity_id="charge",
                task_queue=queue,
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=4),
                retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), backoff_coefficient=1),
            )


@activity.defn
async def nothing() -> None:
    """Does nothing."""


@workflow.defn
class TwoActivities(Steps):
    """Runs an activity for each step."""

    @workflow.init
    def __init__(self) -> None:
        super().__init__()

    @workflow.query(name="done")
    def has_done(self) -> int:
        return self.done

    @workflow.run
    async def run(self) -> dict[str, int]:
        while True:
            await workflow.wait_condition(lambda: bool(self.steps))
            self.steps.pop(0)
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=10))
            self.done += 1


@workflow.defn
class Elsewhere:
    """Runs an activity on a queue that nobody polls."""

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            "anything", task_queue="nobody-polls-this", start_to_close_timeout=timedelta(seconds=60)
        )


@workflow.defn
class Family:
    """Has two children that speak in its session."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        own = workflow.info().workflow_id
        children = [
            await workflow.start_child_workflow(
                Child.run, number, id=f"{own}-child-{number}", memo={"wakeline.session": own}
            )
            for number in range(2)
        ]
        for child in children:
            await child
        self.stream.topic("said", type=str).publish("all are grown up")


@workflow.defn
class Leaves:
    """Waits for as many signals as it is told; then starts children that speak in its session, and ends without them."""

    def __init__(self) -> None:
        self.signals = 0

    @workflow.signal
    def go(self) -> None:
        self.signals += 1

    @workflow.run
    async def run(self, children: int, signals: int) -> None:
        await workflow.wait_condition(lambda: self.signals >= signals)
        own = workflow.info().workflow_id
        for number in range(children):
            await workflow.start_child_workflow(
                Child.run,
                number,
                id=f"{own}-child-{number}",
                memo={"wakeline.session": own},
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            )


@workflow.defn
class Repeats:
    """Has the same child again and again, one run after the other; a search attribute says where it speaks."""

    @workflow.run
    async def run(self, times: int) -> None:
        own = workflow.info().workflow_id
        for number in range(times):
            await workflow.execute_child_workflow(
                Child.run,
                number,
                id=f"{own}-child",
                search_attributes=TypedSearchAttributes([SearchAttributePair(SESSION, own)]),
            )


@workflow.defn
class Child:
    """Says three things."""

    @workflow.init
    def __init__(self, number: int) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, number: int) -> None:
        for word in range(3):
            self.stream.topic("said", type=str).publish(f"child {number}, word {word}")
            await asyncio.sleep(0.05)


@workflow.defn
class Forgets:
    """Says a few things in each run, and continues as new without its stream."""

    @workflow.init
    def __init__(self, left: int) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, left: int) -> None:
        for word in range(3 - left, 5):
            self.stream.topic("said", type=str).publish(f"{left} left, word {word}")
        if left:
            workflow.continue_as_new(left - 1)


@workflow.defn
class Chapters:
    """Says two things, waits to be told, and continues as new without its stream."""

    @workflow.init
    def __init__(self, number: int) -> None:
        self.stream = WorkflowStream()
        self.told = False

    @workflow.signal
    def go(self) -> None:
        self.told = True

    @workflow.run
    async def run(self, number: int) -> None:
        for word in range(2):
            self.stream.topic("said", type=str).publish(f"chapter {number}, word {word}")
        await workflow.wait_condition(lambda: self.told)
        workflow.continue_as_new(number + 1)


@workflow.defn
class Fails:
    """Fails at once."""

    @workflow.run
    async def run(self) -> None:
        raise ApplicationError("no stock left")


@workflow.defn(sandboxed=False)
class Broken:
    """Its tasks fail until its code is mended; then it waits for a signal."""

    def __init__(self) -> None:
        self.told = False

    @workflow.signal
    def go_on(self) -> None:
        self.told = True

    @workflow.run
    async def run(self) -> None:
        if workflow.info().workflow_id not in mended:
            raise RuntimeError("no such field: amount")
        await workflow.wait_condition(lambda: self.told)


WORKFLOWS = [
    Steps,
    TwoActivities,
    Approval,
    Turns,
    Sleeper,
    Troubled,
    Again,
    Elsewhere,
    Family,
    Leaves,
    Repeats,
    Child,
    Forgets,
    Chapters,
    Fails,
    Broken,
]
ACTIVITIES = [nothing, fails_at_first, goes_on_when_told, silent_at_first]
