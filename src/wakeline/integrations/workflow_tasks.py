"""Reports each step of a worker's workflows, and the last one, without code in them.

The step itself, replay and the sandbox are as they were: the call is made outside of all of them, when it is over.
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

Tell: TypeAlias = Callable[[str], None]
Runner = TypeVar("Runner", bound=WorkflowRunner)

_logger = get_logger("wakeline.integrations.temporal")
_ENDS: Final = frozenset({"complete_workflow_execution", "fail_workflow_execution", "cancel_workflow_execution"})
_NOTHING_NEW: Final = frozenset({"query_workflow", "remove_from_cache"})


def telling(runner: Runner, tell: Tell, tell_end: Tell) -> Runner:
    """A runner like this one that calls `tell` with the Workflow Id after each step of each workflow.

    It is a subclass of the runner's own class, so that it goes through `isinstance` and `dataclasses.replace` of other plugins.

    Args:
        runner: The runner; it stays as it is.
        tell: Called in the threads of the workflows.
        tell_end: Called before it where the step was the last one of the workflow's chain, as far as the workflow knows.
    """
    kind: Any = type(runner)

    class Telling(kind):  # type: ignore[misc] # whatever the class is: it is known only now
        def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
            instance = super().create_instance(det)
            return cast("WorkflowInstance", _TellingInstance(instance, det.info.workflow_id, tell, tell_end))

    try:
        copied = copy.copy(runner)
        object.__setattr__(copied, "__class__", Telling)  # a dataclass that is frozen refuses it the usual way
    except Exception as error:  # noqa: BLE001 - a runner that is made otherwise works as before
        _logger.warning("expected a workflow runner that can be copied, its workflows are not told of: %r", error)
        return runner
    return copied


class _TellingInstance:
    """One workflow in a worker's cache; all but `activate` is as the instance has it, also what later versions add."""

    __slots__ = ("_instance", "_tell", "_tell_end", "_workflow_id")

    def __init__(self, instance: WorkflowInstance, workflow_id: str, tell: Tell, tell_end: Tell) -> None:
        self._instance = instance
        self._workflow_id = workflow_id
        self._tell = tell
        self._tell_end = tell_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        completion = self._instance.activate(act)
        try:
            if not act.is_replaying and _is_a_step(act) and not completion.HasField("failed"):
                if any(command.WhichOneof("variant") in _ENDS for command in completion.successful.commands):
                    self._tell_end(self._workflow_id)
                self._tell(self._workflow_id)
        except Exception:
            _logger.exception("a step of workflow %s could not be told", self._workflow_id)
        return completion


def _is_a_step(act: WorkflowActivation) -> bool:
    """Whether the workflow may have something new: not where it was only asked something.

    Who reads its stream by Update asks, too; to tell of that would make them ask again.
    """
    for job in act.jobs:
        kind = job.WhichOneof("variant")
        if kind not in _NOTHING_NEW and not (kind == "do_update" and job.do_update.name == POLL):
            return True
    return False
