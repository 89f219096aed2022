"""Children that publish into their parent's session: their memo names it."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from temporalio import workflow
from temporalio.worker import StartChildWorkflowInput, WorkflowInboundInterceptor, WorkflowOutboundInterceptor

SESSION_MEMO: Final = "wakeline.session"


class JoiningInterceptor(WorkflowInboundInterceptor):
    """Has a workflow's children join its session, unless their memo names another.

    Replay does not compare memos, so workflows that are already running may get it.
    """

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """See base class."""
        super().init(_Joining(outbound))


class _Joining(WorkflowOutboundInterceptor):
    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:
        memo = dict(input.memo or {})
        if SESSION_MEMO not in memo:
            memo[SESSION_MEMO] = workflow.memo_value(SESSION_MEMO, workflow.info().workflow_id)
        return await super().start_child_workflow(dataclasses.replace(input, memo=memo))
