"""Reports each step of a worker's workflows, and the last one, without code in them.

The call is made after the step and outside of it, so that replay and the sandbox are not affected.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from wakeline.logs import get_logger
from wakeline.streams.wire import POLL

OnStep: TypeAlias = Callable[[str], None]
Runner = TypeVar("Runner", bound=WorkflowRunner)

_logger = get_logger("wakeline.integrations.temporal")
_ENDS: Final = frozenset({"complete_workflow_execution", "fail_workflow_execution", "cancel_workflow_execution"})
_NOTHING_NEW: Final = frozenset({"query_workflow", "remove_from_cache"})


def reporting(runner: Runner, on_step: OnStep, on_end: OnStep) -> Runner:
    """Return a copy of a runner that calls `on_step` with a Workflow Id after each step.

    The copy's class is a subclass of the runner's, so that `isinstance` and `dataclasses.replace` of other plugins work.

    Args:
        runner: The runner; it is not modified.
        on_step: Called in the threads of the workflows.
        on_end: Called before `on_step` if the step was the last one of the workflow's chain, as far as the workflow knows.
    """
    kind: Any = type(runner)

    class Reporting(kind):  # type: ignore[misc] # the base class is known only at run time
        def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
            instance = super().create_instance(det)
            return cast("WorkflowInstance", _ReportingInstance(instance, det.info.workflow_id, on_step, on_end))

    try:
        copied = copy.copy(runner)
        object.__setattr__(copied, "__class__", Reporting)  # a frozen dataclass refuses a plain assignment
    except Exception as error:  # noqa: BLE001 - another kind of runner works as before, without nudges
        _logger.warning("expected a workflow runner that can be copied; its workflows send no nudges: %r", error)
        return runner
    return copied


class _ReportingInstance:
    """One workflow in a worker's cache; everything but `activate` is passed on to the instance."""

    __slots__ = ("_instance", "_on_end", "_on_step", "_workflow_id")

    def __init__(self, instance: WorkflowInstance, workflow_id: str, on_step: OnStep, on_end: OnStep) -> None:
        self._instance = instance
        self._workflow_id = workflow_id
        self._on_step = on_step
        self._on_end = on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        completion = self._instance.activate(act)
        try:
            if not act.is_replaying and _is_a_step(act) and not completion.HasField("failed"):
                if any(command.WhichOneof("variant") in _ENDS for command in completion.successful.commands):
                    self._on_end(self._workflow_id)
                self._on_step(self._workflow_id)
        except Exception:
            _logger.exception("a step of workflow %s could not be reported", self._workflow_id)
        return completion


def _is_a_step(act: WorkflowActivation) -> bool:
    """Return whether the workflow may have new events.

    Queries and the poll Updates of readers are excluded: a report of them would make the readers poll again.
    """
    for job in act.jobs:
        kind = job.WhichOneof("variant")
        if kind not in _NOTHING_NEW and not (kind == "do_update" and job.do_update.name == POLL):
            return True
    return False
