"""The chain of a run: what it received from the run before it, and where a reset began."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import ContinueAsNewInitiator, WorkflowExecutionStatus
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionStartedEventAttributes
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client, WorkflowHandle

from wakeline.temporal.failures import RPC_TIMEOUT

# A chain may have continued this many times between a reset and the check that finds it.
_MOST_SINCE_RESET: Final = 100
# The JSON of a carried stream has this member, whichever language's library wrote it.
_CARRIED: Final = b'"base_offset"'
_GIVE_NONE: Final = (
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY,
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE,
)


class Start(NamedTuple):
    """How a run began.

    Attributes:
        run_id: The run.
        at: When.
        said: What its first event says.
    """

    run_id: str
    at: datetime
    said: WorkflowExecutionStartedEventAttributes

    @property
    def original(self) -> str:
        """The run that this event was written for: a reset copies it."""
        return self.said.original_execution_run_id

    @property
    def previous(self) -> str:
        """The run before it in its chain; empty if there is none."""
        return self.said.continued_execution_run_id

    @property
    def by_cron(self) -> bool:
        """Whether its cron schedule began it."""
        return self.said.initiator == ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE

    @property
    def received(self) -> bool:
        """Whether it has the stream of the run before it, as far as can be seen.

        Retry and cron give it none.
        """
        return self.said.initiator not in _GIVE_NONE and carries(self.said.input.payloads) is not False

    @property
    def given(self) -> int:
        """How many events of an earlier stream it received; 0 if that cannot be seen."""
        for payload in self.said.input.payloads:
            if _CARRIED in payload.data:
                with suppress(ValueError, RecursionError):
                    return _length(json.loads(payload.data))
        return 0


async def describe(
    client: Client, workflow_id: str, run_id: str | None = None, timeout: timedelta = RPC_TIMEOUT
) -> DescribeWorkflowExecutionResponse:
    """Describe a workflow's latest run, or one of its runs.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    return (await handle.describe(rpc_timeout=timeout)).raw_description


async def first_event(client: Client, workflow_id: str, run_id: str) -> HistoryEvent:
    """Return the event that a run began with.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    events = handle.fetch_history_events(page_size=1, skip_archival=True, rpc_timeout=RPC_TIMEOUT)
    await events.fetch_next_page()
    for event in events.current_page or ():
        return event
    return HistoryEvent()


async def start_of(client: Client, workflow_id: str, run_id: str) -> Start:
    """Return how a run began.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    event = await first_event(client, workflow_id, run_id)
    return Start(run_id, event.event_time.ToDatetime(tzinfo=UTC), event.workflow_execution_started_event_attributes)


async def began_by_reset(client: Client, workflow_id: str, latest: str) -> str:
    """Return the run that a reset began: `latest`, or one before it.

    The chain may have continued since the reset.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the run.
    """
    run_id = latest
    for _ in range(_MOST_SINCE_RESET):
        start = await start_of(client, workflow_id, run_id)
        if start.original != run_id:
            return run_id  # a reset copies the first events of another run
        if not start.previous:
            break
        run_id = start.previous
    return latest


async def is_over(client: Client, workflow_id: str, chain: str) -> tuple[bool, str]:
    """Return whether a chain has ended, and the latest run of its workflow.

    Args:
        client: Temporal.
        workflow_id: The workflow.
        chain: The run id of the chain's first execution.

    Raises:
        RPCError: Temporal cannot be asked now, or does not have the workflow.
    """
    info = (await describe(client, workflow_id)).workflow_execution_info
    runs = info.status == WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
    return not runs or info.first_run_id != chain, info.execution.run_id


def carries(given: Iterable[Payload]) -> bool | None:
    """Return whether the input of a run has a stream in it; None if a part of it cannot be read."""
    readable = True
    for payload in given:
        if _CARRIED in payload.data:
            return True
        readable &= payload.metadata.get("encoding", b"") in (b"json/plain", b"binary/null", b"binary/plain")
        readable &= not payload.external_payloads
    return False if readable else None


def _length(value: Any) -> int:
    """Return the length of the stream that is somewhere in a value."""
    if isinstance(value, dict):
        log, base_offset = value.get("log"), value.get("base_offset")
        if isinstance(log, list) and isinstance(base_offset, int):
            return base_offset + len(log)
        value = list(value.values())
    return max(map(_length, value), default=0) if isinstance(value, list) else 0
