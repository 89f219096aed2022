"""The reason for which a run waits: what each description means after those before it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from temporalio.api.enums.v1 import PendingWorkflowTaskState, TaskQueueType
from temporalio.api.failure.v1 import Failure
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.api.workflow.v1 import PendingWorkflowTaskInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from wakeline.gateway.following.watching.activities import SCHEDULED
from wakeline.gateway.following.watching.waiting import Sight, Waits
from wakeline.temporal.deployments import Queue
from wakeline.temporal.history import History

TASK = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
BEGUN = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
FIRES = datetime(2026, 12, 1, tzinfo=UTC)
WORKER = {"for": "worker", "task_queue": "q"}
TASKS = Queue("q", TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
ACTIVITIES = Queue("q", TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
INPUT = {"for": "input", "signals": ["approve"], "updates": []}
NOBODY, HANDLERS = None, WorkflowMetadata()
HANDLERS.definition.signal_definitions.add(name="approve")
HANDLERS.definition.signal_definitions.add(name="__its_own")


class Look(NamedTuple):
    """One description of the run, the answers of the worker and of Temporal if they are asked, and what is expected.

    Attributes:
        overdue: The task queues that Temporal is asked for.
        started: Those that it starts workers for.
    """

    at: float
    expected: dict[str, Any] | None
    soon: bool = False
    length: int = 5
    task: PendingWorkflowTaskState.ValueType | None = None
    attempt: int = 1
    activity: float | None = None
    metadata: WorkflowMetadata | None = HANDLERS
    asked: bool = False
    failed: bool = False
    timer: bool = False
    overdue: tuple[Queue, ...] = ()
    started: tuple[Queue, ...] = ()


@pytest.mark.parametrize(
    ("reported", "looks"),
    [
        pytest.param(
            None,
            [Look(0, None, True), Look(4, None, True), Look(6, INPUT, asked=True), Look(9, INPUT)],
            id="a quiet run is asked once for its handlers",
        ),
        pytest.param(
            None,
            [Look(0, None, True), Look(6, INPUT, asked=True), Look(7, None, True, length=6)],
            id="a new event ends the reason",
        ),
        pytest.param(WORKER, [Look(0, WORKER, True)], id="the first look of all does not know for how long it is so"),
        pytest.param(
            None,
            [Look(0, None, True)]
            + [Look(6 + n, None, True, metadata=NOBODY, asked=True) for n in range(8)]
            + [Look(20, {"for": "input"}, metadata=NOBODY, asked=True)],
            id="a run whose worker answers nothing waits for input",
        ),
        pytest.param(
            None,
            [
                Look(0, None, True, timer=True),
                Look(
                    6,
                    {"for": "timer", "until": "2026-12-01T00:00:00.000Z"},
                    asked=True,
                    metadata=WorkflowMetadata(),
                    timer=True,
                ),
            ],
            id="a run without handlers waits for its timer",
        ),
        pytest.param(
            None,
            [
                Look(0, None, True, task=TASK),
                Look(7, None, True, task=TASK),
                Look(8, WORKER, task=TASK, overdue=(TASKS,)),
            ],
            id="a task that nobody accepts waits for a worker",
        ),
        pytest.param(
            WORKER,
            [Look(0, WORKER, True, task=TASK), Look(1, None, task=BEGUN)],
            id="a worker that was waited for is there",
        ),
        pytest.param(
            None,
            [
                Look(0, None, False, activity=30.0),
                Look(37, None, True, activity=30.0),
                Look(38, WORKER, activity=30.0, overdue=(ACTIVITIES,)),
            ],
            id="a retry of an activity that nobody accepts waits for a worker after its pause",
        ),
        pytest.param(
            None,
            [
                Look(0, None, True, task=TASK),
                Look(8, None, False, task=TASK, overdue=(TASKS,), started=(TASKS,)),
                Look(82, None, True, task=TASK, overdue=(TASKS,), started=(TASKS,)),
                Look(90, WORKER, task=TASK),
            ],
            id="a task that Temporal starts a worker for waits for one after 90 seconds",
        ),
        pytest.param(
            None,
            [
                Look(0, None, True, task=TASK),
                Look(8, None, False, task=TASK, overdue=(TASKS,), started=(TASKS,)),
                Look(20, WORKER, task=TASK, overdue=(TASKS,)),
            ],
            id="a task waits for a worker as soon as Temporal does not start one any more",
        ),
        pytest.param(
            None,
            [
                Look(0, None, True, task=TASK),
                Look(8, None, False, task=TASK, overdue=(TASKS,), started=(TASKS,)),
                Look(9, None, task=BEGUN),
            ],
            id="a worker that Temporal has started in time is not waited for",
        ),
        pytest.param(
            None,
            [
                Look(0, None, True, task=TASK, activity=0.0),
                Look(8, WORKER, task=TASK, activity=0.0, overdue=(TASKS, ACTIVITIES), started=(TASKS,)),
            ],
            id="a task that nobody starts a worker for is reported although another one waits for its worker",
        ),
        pytest.param(
            WORKER,
            [Look(0, WORKER, True, task=TASK), Look(8, WORKER, task=TASK), Look(20, WORKER, task=TASK)],
            id="a reason that was reported is not asked for",
        ),
        pytest.param(
            None,
            [
                Look(0, None, True, task=BEGUN, attempt=2),
                Look(5, {"for": "task_retry", "attempt": 2}, task=BEGUN, attempt=2),
            ],
            id="a task that fails once is reported if it lasts",
        ),
        pytest.param(
            None,
            [Look(0, {"for": "task_retry", "attempt": 3}, task=TASK, attempt=3, failed=True)],
            id="a task that has failed twice is reported at once",
        ),
    ],
)
def test_a_run_waits_for(reported: dict[str, Any] | None, looks: list[Look]) -> None:
    waits, seen = Waits(), reported
    for look in looks:
        described, history = DescribeWorkflowExecutionResponse(), History()
        described.execution_config.task_queue.name = "q"
        described.workflow_execution_info.history_length = look.length
        if look.task is not None:
            task = PendingWorkflowTaskInfo(state=look.task, attempt=look.attempt)
            described.pending_workflow_task.CopyFrom(task)
        if look.activity is not None:
            pending = described.pending_activities.add(activity_id="1", attempt=2, state=SCHEDULED)
            pending.current_retry_interval.FromSeconds(int(look.activity))
        history.task_failure = Failure(message="no such field") if look.failed else None
        history.timers = {3: FIRES} if look.timer else {}
        sight = Sight(described, history, tells=True, time=1000 + look.at)
        verdict, overdue = waits.reason(sight, seen=seen, reported=reported), []
        while verdict.overdue is not None:
            overdue.append(verdict.overdue)
            if verdict.overdue not in look.started:
                break
            sight = sight._replace(started=sight.started | {verdict.overdue})
            verdict = waits.reason(sight, seen=seen, reported=reported)
        assert tuple(overdue) == look.overdue, look
        assert verdict.asks == look.asked
        if verdict.asks:
            verdict = waits.answered(sight, look.metadata, seen=seen)
        assert (verdict.reason, verdict.soon) == (look.expected, look.soon), look
        assert (verdict.failure is not None) == look.failed
        seen = reported = verdict.reason
