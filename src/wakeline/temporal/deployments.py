"""Versions of worker deployments: the one that a task goes to, and who starts its workers."""

from __future__ import annotations

from typing import NamedTuple

from temporalio.api.compute.v1 import ComputeConfig
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType, VersioningBehavior
from temporalio.api.taskqueue.v1 import TaskQueueVersioningInfo
from temporalio.api.workflow.v1 import WorkflowExecutionVersioningInfo
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentVersionResponse


class Queue(NamedTuple):
    """A task queue, of workflow tasks or of activities."""

    name: str
    kind: TaskQueueType.ValueType


class Version(NamedTuple):
    """A version of a worker deployment."""

    deployment: str
    build: str


class Workers(NamedTuple):
    """The workers of a version.

    Attributes:
        queues: The task queues that they have polled.
        started: Those of them for whose tasks Temporal starts workers.
    """

    queues: frozenset[Queue] = frozenset()
    started: frozenset[Queue] = frozenset()


def own_version(info: WorkflowExecutionVersioningInfo) -> Version | None:
    """Return the version that a run's tasks stay with; None if their task queue decides."""
    given = info.versioning_override.WhichOneof("override")
    if given == "one_time":
        return _version(info.versioning_override.one_time.target_deployment_version)
    if given == "pinned":
        override = info.versioning_override.pinned
        return _version(override.version if override.HasField("version") else info.deployment_version)
    if given is None and info.behavior == VersioningBehavior.VERSIONING_BEHAVIOR_PINNED:
        return _version(info.deployment_version)
    return None


def queue_versions(info: TaskQueueVersioningInfo) -> tuple[Version, ...]:
    """Return the versions that a task queue sends tasks to: current, ramping, or both."""
    share = info.ramping_version_percentage
    versions = (
        _version(info.current_deployment_version) if share < 100 else None,
        _version(info.ramping_deployment_version) if share > 0 else None,
    )
    return tuple(version for version in versions if version is not None)


def workers_of(described: DescribeWorkerDeploymentVersionResponse) -> Workers:
    """Return the workers of a version that is described."""
    queues = frozenset(Queue(queue.name, queue.type) for queue in described.version_task_queues)
    config = described.worker_deployment_version_info.compute_config
    return Workers(queues, frozenset(queue for queue in queues if _starts(config, queue.kind)))


def _starts(config: ComputeConfig, kind: TaskQueueType.ValueType) -> bool:
    # A scaling group without kinds serves those that no other one serves.
    groups = config.scaling_groups.values()
    return any(kind in group.task_queue_types or not group.task_queue_types for group in groups)


def _version(version: WorkerDeploymentVersion) -> Version | None:
    """Return a version; None for the workers without one."""
    return Version(version.deployment_name, version.build_id) if version.build_id else None
