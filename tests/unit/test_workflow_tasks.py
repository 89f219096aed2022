"""What a worker tells of its workflows: which steps, and that telling changes none."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from wakeline.integrations.workflow_tasks import reporting
from wakeline.streams.wire import POLL


def activation(*jobs: str, is_replaying: bool = False, update: str = "add") -> WorkflowActivation:
    made = WorkflowActivation(run_id="run-1", is_replaying=is_replaying)
    for job in jobs:
        getattr(made.jobs.add(), job).SetInParent()
        if job == "do_update":
            made.jobs[-1].do_update.name = update
    return made


def completion(**failed: str) -> WorkflowActivationCompletion:
    made = WorkflowActivationCompletion(run_id="run-1")
    if failed:
        made.failed.failure.message = "no"
    else:
        made.successful.SetInParent()
    return made


class Runner(WorkflowRunner):
    """Gives instances that answer as they are scripted."""

    def __init__(self) -> None:
        self.answer: Any = completion()

    def prepare_workflow(self, defn: Any) -> None:
        """Nothing is to be prepared."""

    def set_worker_level_failure_exception_types(self, types: Any) -> None:
        """Nothing is to be known."""

    def create_instance(self, det: Any) -> Any:
        def activate(act: WorkflowActivation) -> WorkflowActivationCompletion:
            if isinstance(self.answer, BaseException):
                raise self.answer
            answer: WorkflowActivationCompletion = self.answer
            return answer

        return SimpleNamespace(activate=activate, get_info=lambda: det.info, get_thread_id=lambda: 7, later="kept")


def nothing(_: str) -> None:
    """Hear of it and do nothing."""


DETAILS: Any = SimpleNamespace(info=SimpleNamespace(workflow_id="order-1"))


@pytest.mark.parametrize(
    ("act", "reported"),
    [
        (activation("initialize_workflow"), True),
        (activation("signal_workflow", "fire_timer"), True),
        (activation("resolve_activity"), True),
        (activation("query_workflow", "query_workflow"), False),
        (activation("remove_from_cache"), False),
        (activation(), False),
        (activation("do_update"), True),
        (activation("do_update", update=POLL), False),
        (activation("do_update", "signal_workflow", update=POLL), True),
        (activation("initialize_workflow", "signal_workflow", is_replaying=True), False),
        (activation("notify_has_patch", "cancel_workflow"), True),
    ],
    ids=lambda value: ",".join(job.WhichOneof("variant") for job in value.jobs) if hasattr(value, "jobs") else None,
)
def test_steps_are_reported_but_not_queries_or_replays(act: WorkflowActivation, reported: bool) -> None:
    heard: list[str] = []
    runner = Runner()
    assert reporting(runner, heard.append, nothing).create_instance(DETAILS).activate(act) is runner.answer
    assert heard == (["order-1"] if reported else [])


def test_a_step_that_failed_is_not_told() -> None:
    heard: list[str] = []
    runner = Runner()
    runner.answer = completion(failed="no")
    instance = reporting(runner, heard.append, nothing).create_instance(DETAILS)
    assert instance.activate(activation("fire_timer")).failed.failure.message == "no"
    assert heard == []


@pytest.mark.parametrize(
    ("command", "ends"),
    [
        ("complete_workflow_execution", True),
        ("fail_workflow_execution", True),
        ("continue_as_new_workflow_execution", False),
        ("start_timer", False),
    ],
)
def test_a_step_that_ends_the_chain_is_reported_as_its_end_first(command: str, ends: bool) -> None:
    heard: list[str] = []
    runner = Runner()
    getattr(runner.answer.successful.commands.add(), command).SetInParent()
    instance = reporting(runner, lambda name: heard.append(f"step {name}"), lambda name: heard.append(f"end {name}"))
    instance.create_instance(DETAILS).activate(activation("fire_timer"))
    assert heard == (["end order-1"] if ends else []) + ["step order-1"]


def test_what_an_instance_raises_is_raised_and_what_telling_raises_is_not(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("a defect")

    runner = Runner()
    instance = reporting(runner, fail, nothing).create_instance(DETAILS)
    with caplog.at_level(logging.ERROR):
        assert instance.activate(activation("fire_timer")) is runner.answer
    assert "could not be reported" in caplog.text
    runner = Runner()
    runner.answer = KeyError("its own")
    with pytest.raises(KeyError, match="its own"):
        reporting(runner, fail, nothing).create_instance(DETAILS).activate(activation("fire_timer"))


def test_an_instance_is_otherwise_as_it_was() -> None:
    instance: Any = reporting(Runner(), nothing, nothing).create_instance(DETAILS)
    assert (instance.get_info().workflow_id, instance.get_thread_id(), instance.later) == ("order-1", 7, "kept")


@pytest.mark.parametrize("runner", [SandboxedWorkflowRunner(), UnsandboxedWorkflowRunner(), Runner()])
def test_a_runner_stays_as_it_is_and_the_new_one_is_of_its_class(runner: WorkflowRunner) -> None:
    kind = type(runner)
    copied = reporting(runner, nothing, nothing)
    assert type(runner) is kind
    assert isinstance(copied, kind)
    assert copied is not runner


def test_what_other_plugins_change_of_a_sandbox_leaves_it_telling() -> None:
    heard: list[str] = []

    class Quick(SandboxedWorkflowRunner):
        def create_instance(self, det: Any) -> Any:
            return Runner().create_instance(det)

    copied = reporting(Quick(), heard.append, nothing)
    changed = dataclasses.replace(copied, restrictions=SandboxRestrictions.default.with_passthrough_modules("mine"))
    assert "mine" in changed.restrictions.passthrough_modules
    changed.set_worker_level_failure_exception_types([ValueError])
    changed.create_instance(DETAILS).activate(activation("fire_timer"))
    assert heard == ["order-1"]


def test_a_runner_that_cannot_be_copied_works_as_before(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Runner):
        def __copy__(self) -> Any:
            raise TypeError("there is one of me")

    runner = Stubborn()
    assert reporting(runner, nothing, nothing) is runner
    assert "there is one of me" in caplog.text
