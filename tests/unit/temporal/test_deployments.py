"""Which version of a worker deployment a task goes to, and whether Temporal starts its workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from temporalio.api.compute.v1 import ComputeConfig, ComputeConfigScalingGroup
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType, VersioningBehavior
from temporalio.api.taskqueue.v1 import TaskQueueVersioningInfo
from temporalio.api.workflow.v1 import VersioningOverride, WorkflowExecutionVersioningInfo
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentVersionResponse

from wakeline.temporal.deployments import Queue, Version, Workers, own_version, queue_versions, workers_of

OLD, NEW = (WorkerDeploymentVersion(deployment_name="chat", build_id=build) for build in ("1", "2"))
PINNED = VersioningBehavior.VERSIONING_BEHAVIOR_PINNED
UPGRADES = VersioningBehavior.VERSIONING_BEHAVIOR_AUTO_UPGRADE
WORKFLOW, ACTIVITY = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
TASKS, ACTIVITIES = Queue("q", WORKFLOW), Queue("q", ACTIVITY)
Info = WorkflowExecutionVersioningInfo


def overridden(change: Callable[[VersioningOverride], object], **info: Any) -> Info:
    override = VersioningOverride()
    change(override)
    return Info(versioning_override=override, **info)


@pytest.mark.parametrize(
    ("info", "build"),
    [
        pytest.param(Info(), None, id="no worker has accepted a task of the run"),
        pytest.param(Info(deployment_version=OLD), None, id="its worker has a version, and no versioning"),
        pytest.param(Info(behavior=PINNED, deployment_version=OLD), "1", id="pinned"),
        pytest.param(Info(behavior=UPGRADES, deployment_version=OLD), None, id="moves to the current version"),
        pytest.param(
            overridden(lambda override: override.pinned.version.CopyFrom(NEW), behavior=UPGRADES),
            "2",
            id="pinned from outside",
        ),
        pytest.param(
            overridden(lambda override: override.pinned.SetInParent(), behavior=UPGRADES, deployment_version=OLD),
            "1",
            id="pinned from outside to the version that it has",
        ),
        pytest.param(
            overridden(lambda override: override.one_time.target_deployment_version.CopyFrom(NEW), behavior=PINNED),
            "2",
            id="moved once from outside",
        ),
        pytest.param(
            overridden(lambda override: setattr(override, "auto_upgrade", True), behavior=PINNED),
            None,
            id="pinned, and told from outside to move",
        ),
    ],
)
def test_the_version_that_the_tasks_of_a_run_stay_with(info: Info, build: str | None) -> None:
    assert own_version(info) == (Version("chat", build) if build else None)


@pytest.mark.parametrize(
    ("info", "builds"),
    [
        pytest.param(TaskQueueVersioningInfo(), (), id="workers without a version"),
        pytest.param(TaskQueueVersioningInfo(current_deployment_version=OLD), ("1",), id="one version"),
        pytest.param(
            TaskQueueVersioningInfo(
                current_deployment_version=OLD, ramping_deployment_version=NEW, ramping_version_percentage=5
            ),
            ("1", "2"),
            id="a share of the tasks goes to another version",
        ),
        pytest.param(
            TaskQueueVersioningInfo(
                current_deployment_version=OLD, ramping_deployment_version=NEW, ramping_version_percentage=100
            ),
            ("2",),
            id="all tasks go to another version",
        ),
        pytest.param(
            TaskQueueVersioningInfo(current_deployment_version=OLD, ramping_deployment_version=NEW),
            ("1",),
            id="no task goes to another version yet",
        ),
    ],
)
def test_the_versions_that_a_task_queue_sends_tasks_to(info: TaskQueueVersioningInfo, builds: tuple[str, ...]) -> None:
    assert queue_versions(info) == tuple(Version("chat", build) for build in builds)


@pytest.mark.parametrize(
    ("groups", "started"),
    [
        pytest.param([], [], id="somebody else starts the workers"),
        pytest.param([[]], [TASKS, ACTIVITIES], id="Temporal starts them for all tasks"),
        pytest.param([[ACTIVITY]], [ACTIVITIES], id="Temporal starts them for activities"),
        pytest.param([[ACTIVITY], []], [TASKS, ACTIVITIES], id="Temporal starts one kind of them for activities"),
    ],
)
def test_the_task_queues_that_temporal_starts_workers_for(
    groups: list[list[TaskQueueType.ValueType]], started: list[Queue]
) -> None:
    described = DescribeWorkerDeploymentVersionResponse()
    for queue in (TASKS, ACTIVITIES):
        described.version_task_queues.add(name=queue.name, type=queue.kind)
    named = {str(number): ComputeConfigScalingGroup(task_queue_types=kinds) for number, kinds in enumerate(groups)}
    described.worker_deployment_version_info.compute_config.CopyFrom(ComputeConfig(scaling_groups=named))
    assert workers_of(described) == Workers(frozenset({TASKS, ACTIVITIES}), frozenset(started))
