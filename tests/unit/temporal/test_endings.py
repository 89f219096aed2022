"""How a run ended, from the last event of its history."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.api.common.v1 import Payload, Payloads, WorkflowType
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import (
    HistoryEvent,
    WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionContinuedAsNewEventAttributes,
    WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes,
    WorkflowExecutionTimedOutEventAttributes,
)

from wakeline.temporal.endings import is_closing, read_ending

BROKE = Failure(message="broke")
CHAT = WorkflowType(name="Chat")
STREAM = Payloads(
    payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b'{"stream": {"log": [], "base_offset": 3}}')]
)
PLAIN = Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b'"no stream"')])
SECRET = Payloads(payloads=[Payload(metadata={"encoding": b"binary/encrypted"}, data=b"?")])


def closing(name: str, attributes: Any) -> HistoryEvent:
    kind = EventType.Value(f"EVENT_TYPE_WORKFLOW_EXECUTION_{name}")
    return HistoryEvent(**{"event_type": kind, f"workflow_execution_{name.lower()}_event_attributes": attributes})


continued = WorkflowExecutionContinuedAsNewEventAttributes
completed = WorkflowExecutionCompletedEventAttributes
failed = WorkflowExecutionFailedEventAttributes
timed_out = WorkflowExecutionTimedOutEventAttributes

ENDINGS: dict[str, tuple[HistoryEvent, tuple[Any, ...]]] = {
    "a completed run ends its chain": (
        closing("COMPLETED", completed()),
        ("completed", "", None, "COMPLETED", None, ""),
    ),
    "a completed run of a cron schedule is followed by the next one": (
        closing("COMPLETED", completed(new_execution_run_id="next")),
        (None, "next", "cron", "COMPLETED", False, ""),
    ),
    "a failed run ends its chain with its failure": (
        closing("FAILED", failed(failure=BROKE)),
        ("failed", "", None, "FAILED", None, "broke"),
    ),
    "a failed run with another attempt is retried": (
        closing("FAILED", failed(failure=BROKE, new_execution_run_id="next")),
        (None, "next", "retry", "FAILED", False, "broke"),
    ),
    "a run that timed out ends its chain": (
        closing("TIMED_OUT", timed_out()),
        ("timed_out", "", None, "TIMED_OUT", None, ""),
    ),
    "a run that timed out with another attempt is retried": (
        closing("TIMED_OUT", timed_out(new_execution_run_id="next")),
        (None, "next", "retry", "TIMED_OUT", False, ""),
    ),
    "a canceled run ends its chain": (
        closing("CANCELED", WorkflowExecutionCanceledEventAttributes()),
        ("canceled", "", None, "CANCELED", None, ""),
    ),
    "a terminated run ends its chain with the reason": (
        closing("TERMINATED", WorkflowExecutionTerminatedEventAttributes(reason="enough")),
        ("terminated", "", None, "TERMINATED", None, "enough"),
    ),
    "a run that continues as new carries its stream if the input has it": (
        closing("CONTINUED_AS_NEW", continued(new_execution_run_id="next", workflow_type=CHAT, input=STREAM)),
        (None, "next", "continue_as_new", "CONTINUED_AS_NEW", True, ""),
    ),
    "a run that continues as new leaves its stream if the input has none": (
        closing("CONTINUED_AS_NEW", continued(new_execution_run_id="next", workflow_type=CHAT, input=PLAIN)),
        (None, "next", "continue_as_new", "CONTINUED_AS_NEW", False, ""),
    ),
    "nobody can say whether an encrypted input has the stream": (
        closing("CONTINUED_AS_NEW", continued(new_execution_run_id="next", workflow_type=CHAT, input=SECRET)),
        (None, "next", "continue_as_new", "CONTINUED_AS_NEW", None, ""),
    ),
    "the server shows a retry as continue-as-new without a type": (
        closing("CONTINUED_AS_NEW", continued(new_execution_run_id="next", failure=BROKE)),
        (None, "next", "retry", "CONTINUED_AS_NEW", False, "broke"),
    ),
    "the server shows a cron run as continue-as-new without a type and without a failure": (
        closing("CONTINUED_AS_NEW", continued(new_execution_run_id="next")),
        (None, "next", "cron", "CONTINUED_AS_NEW", False, ""),
    ),
}


@pytest.mark.parametrize(("event", "expected"), ENDINGS.values(), ids=ENDINGS)
def test_the_last_event_says_how_a_run_ended(event: HistoryEvent, expected: tuple[Any, ...]) -> None:
    ending = read_ending(event)
    assert ending.closed_as is not None
    assert expected == (
        ending.status,
        ending.next_run_id,
        ending.follows_by,
        ending.closed_as.name,
        ending.carries,
        ending.message,
    )


def test_an_event_in_the_middle_of_a_history_is_no_end() -> None:
    assert not is_closing(HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED))
