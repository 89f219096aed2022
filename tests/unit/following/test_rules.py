"""Rules: what visibility is asked for them, and which of what it lists they are for."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import WorkflowExecution, WorkflowType
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.following.finding.rules import check_rules, fits, query_of
from wakeline.gateway.rules import Follow


@pytest.mark.parametrize(
    ("rule", "query"),
    [
        (Follow(workflow_type="Agent*"), "WorkflowType STARTS_WITH 'Agent'"),
        (Follow(workflow_type="Agent", task_queue="it's"), "WorkflowType = 'Agent' AND TaskQueue = 'it\\'s'"),
        (Follow(workflow_id="a", query="A = 1 OR B = 2"), "WorkflowId = 'a' AND (A = 1 OR B = 2)"),
        # What visibility cannot be asked for exactly: more is listed, and `fits` chooses.
        (Follow(workflow_id='say "hi"'), "WorkflowId STARTS_WITH 'say '"),
        (Follow(workflow_id="end'\\*"), "WorkflowId STARTS_WITH 'end'"),
        (Follow(workflow_id="'lead", workflow_type="A"), "WorkflowType = 'A'"),
        (Follow(workflow_id="*"), "StartTime > '1970-01-01T00:00:00Z'"),
        (Follow(task_queue="\\"), "StartTime > '1970-01-01T00:00:00Z'"),
    ],
)
def test_what_visibility_is_asked(rule: Follow, query: str) -> None:
    assert query_of(rule) == query


@pytest.mark.parametrize(
    ("rule", "is_for"),
    [
        (Follow(workflow_id='say "hi"'), True),
        (Follow(workflow_id='say "h*'), True),
        (Follow(workflow_id='say "'), False),
        (Follow(workflow_id="*"), True),
        (Follow(workflow_type="Agent"), True),
        (Follow(workflow_type="agent*"), False),
        (Follow(workflow_type="Agent*", task_queue="q"), True),
        (Follow(workflow_type="Agent*", task_queue="q*"), False),
        (Follow(query="whatever"), True),
    ],
)
def test_which_workflows_a_rule_is_for(rule: Follow, is_for: bool) -> None:
    execution, kind = WorkflowExecution(workflow_id='say "hi"', run_id="r"), WorkflowType(name="Agent")
    assert fits(rule, WorkflowExecutionInfo(execution=execution, type=kind, task_queue="q")) is is_for


def test_a_rule_with_a_star_in_its_task_queue_is_refused_with_a_correction() -> None:
    with pytest.raises(SettingsInvalidError, match="task queue") as refusal:
        check_rules([Follow(task_queue="agents-*")], lambda _: True)
    assert "TaskQueue STARTS_WITH" in refusal.value.hint
