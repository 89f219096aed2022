"""Notices beside the events: offsets that are missing or restart, and how the stream ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temporalio.client import WorkflowExecutionStatus


@dataclass(frozen=True)
class StreamGap:
    """The next event is not the one after the last; reported before the next event.

    Attributes:
        reason: `truncated`: the host forgot events before they were read. `retry`, `cron`, `reset`: the workflow
            continues in another run, whose stream is read from its beginning; earlier events belong to a run that is over.
        wanted: The offset that would have come next.
        resumed: The first offset that is still there, or that the next run is read from. Below `wanted` if offsets
            restart.
        run_id: The run that is read from here on.
    """

    reason: Literal["truncated", "retry", "cron", "reset"]
    wanted: int
    resumed: int
    run_id: str


@dataclass(frozen=True)
class StreamEnd:
    """How a subscription ended.

    Attributes:
        status: The run's close status.
        failure: The failure's message, or the reason of a termination; otherwise empty.
        run_id: The run that closed.
        drained: Whether everything the stream retained was read. False where the host answers no poll query, or no
            worker did in time.
    """

    status: WorkflowExecutionStatus
    failure: str
    run_id: str
    drained: bool
