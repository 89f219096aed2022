"""Which workflows are followed by themselves, and into which session each goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.reaching import can_be_quoted, quoted
from wakeline.gateway.rules import Follow

_FIELDS: Final = ("workflow_id", "workflow_type", "parent_workflow_id", "root_workflow_id", "task_queue")
_ANY: Final = "StartTime > '1970-01-01T00:00:00Z'"
_FIELD: Final = re.compile(r"\{([^{}]*)\}")


def session_by_rule(rule: Follow, info: WorkflowExecutionInfo) -> str:
    """The session that a rule names for a workflow."""
    values = {
        "workflow_id": info.execution.workflow_id,
        "workflow_type": info.type.name,
        # A workflow that has no parent is its own.
        "parent_workflow_id": info.parent_execution.workflow_id or info.execution.workflow_id,
        "root_workflow_id": info.root_execution.workflow_id or info.execution.workflow_id,
        "task_queue": info.task_queue,
    }
    return _FIELD.sub(lambda field: values[field[1]], rule.session)


def check_rules(rules: Iterable[Follow], known: Callable[[str], bool]) -> None:
    """Raise unless each rule can be followed.

    Args:
        rules: The rules.
        known: Return whether a namespace is among the settings.

    Raises:
        SettingsInvalidError: One cannot.
    """
    for rule in rules:
        _check_rule(rule)
        if rule.namespace is not None and not known(rule.namespace):
            raise SettingsInvalidError(
                f"expected a namespace of the settings in a rule of follow, got {rule.namespace!r}"
            )


def _check_rule(rule: Follow) -> None:
    if not (rule.workflow_type or rule.workflow_id or rule.task_queue or rule.query):
        raise SettingsInvalidError(
            "expected workflow_type, workflow_id, task_queue or query in a rule of follow, got none of them"
        )
    unknown = [name for name in _FIELD.findall(rule.session) if name not in _FIELDS]
    if unknown or not rule.session or re.search(r"[{}]", _FIELD.sub("", rule.session)):
        raise SettingsInvalidError(
            f"expected a session of text and {', '.join(f'{{{name}}}' for name in _FIELDS)} in a rule of follow, "
            f"got {rule.session!r}"
        )
    for pattern in (rule.workflow_type, rule.workflow_id):
        if pattern is not None and ("*" in pattern[:-1] or not pattern):
            raise SettingsInvalidError(f"expected a name, with * at its end only, in a rule of follow, got {pattern!r}")
    if rule.task_queue is not None and "*" in rule.task_queue:
        raise SettingsInvalidError(
            f"expected the name of one task queue in a rule of follow, got {rule.task_queue!r}",
            hint="For all that begin alike, write query = \"TaskQueue STARTS_WITH 'agents-'\" in place of task_queue.",
        )


def query_of(rule: Follow) -> str:
    """Return the query that lists the workflows of a rule, and perhaps more than those."""
    parts = [
        *_pattern("WorkflowType", rule.workflow_type),
        *_pattern("WorkflowId", rule.workflow_id),
        *_pattern("TaskQueue", rule.task_queue, exact=True),
        *([] if rule.query is None else [f"({rule.query})"]),
    ]
    return " AND ".join(parts) or _ANY


def fits(rule: Follow, info: WorkflowExecutionInfo) -> bool:
    """Whether a rule is for a workflow that its query has listed."""
    return (
        _fits(rule.workflow_type, info.type.name)
        and _fits(rule.workflow_id, info.execution.workflow_id)
        and rule.task_queue in (None, info.task_queue)
    )


def _fits(pattern: str | None, name: str) -> bool:
    if pattern is not None and pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return pattern in (None, name)


def _pattern(attribute: str, pattern: str | None, *, exact: bool = False) -> list[str]:
    if pattern is None:
        return []
    if exact or not pattern.endswith("*"):
        if can_be_quoted(pattern):
            return [f"{attribute} = {quoted(pattern)}"]
        beginning = pattern
    else:
        beginning = pattern[:-1]
    while beginning and not can_be_quoted(beginning):
        beginning = beginning[:-1]
    return [f"{attribute} STARTS_WITH {quoted(beginning)}"] if beginning else []
