"""How `wakeline tail` shows an event."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from wakeline.cli.lines import Lines
from wakeline.client import SessionEvent

TIME = datetime(2026, 11, 21, 5, 14, 43, 123000, UTC)
STARTED = {
    "workflow_id": "order-1",
    "workflow_type": "OrderWorkflow",
    "run_id": "r",
    "started_at": "2026-11-21T05:14:43Z",
}
CLOSED = {"status": "completed", "workflow_id": "order-1", "run_id": "r", "closed_at": "2026-11-21T05:14:55.300Z"}


def event(topic: str, data: Any = None, **fields: Any) -> SessionEvent[Any]:
    return SessionEvent(offset=17, topic=topic, data=data, time=TIME, cursor="c", raw=b"", run="r", **fields)


def shown(*events: SessionEvent[Any], width: int | None = None) -> str:
    """The last one's line, without where and when."""
    lines = Lines(width)
    return [lines.line(event).plain for event in events][-1].removeprefix("    17 05:14:43.123 ")


def test_a_line_tells_where_when_what_and_the_data() -> None:
    line = Lines().line(event("status", {"state": "gepackt für Ümit", "n": 1.5}))
    assert line.plain == '    17 05:14:43.123 status {"state": "gepackt für Ümit", "n": 1.5}'
    assert shown(event("status", 1, attempt=2)) == "status (attempt 2) 1"
    assert shown(event("status", payload={"data": "eA=="})) == 'status {"data": "eA=="}'


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "run completed after 12.3 s"),
        ({"closed_at": "2026-11-21T05:16:44Z"}, "run completed after 2 min 1 s"),
        ({"closed_at": "2026-11-21T08:16:44Z"}, "run completed after 3 h 2 min"),
        ({"status": "failed", "failure": {"message": "no stock"}}, "run failed after 12.3 s: no stock"),
        (
            {"status": "failed", "failure": {"message": "Activity failed", "type": "CardError", "cause": "declined"}},
            "run failed after 12.3 s: Activity failed (CardError: declined)",
        ),
        ({"status": "terminated", "reason": "by hand"}, "run terminated after 12.3 s: by hand"),
        ({"status": "timed_out", "drained": False}, "run timed out after 12.3 s (its last events could not be read)"),
        ({"status": "canceled"}, "run canceled after 12.3 s"),
        ({"status": "unknown"}, "run ended with an unknown status after 12.3 s"),
    ],
)
def test_ends_are_told_in_words(changed: dict[str, Any], words: str) -> None:
    assert shown(event("$run.started", STARTED), event("$run.closed", CLOSED | changed)) == f"$run.closed {words}"


def test_an_end_whose_beginning_was_not_seen_has_no_duration() -> None:
    assert shown(event("$run.closed", CLOSED)) == "$run.closed run completed"


@pytest.mark.parametrize(
    ("topic", "data", "words"),
    [
        ("$run.started", STARTED, "run started: OrderWorkflow order-1"),
        ("$run.continued", {"reason": "continue_as_new"}, "run continued as new"),
        ("$run.continued", {"reason": "retry"}, "run failed and is retried"),
        ("$run.continued", {"reason": "cron"}, "run of the schedule ended, the next one began"),
        ("$run.continued", {"reason": "reset"}, "run was reset and continues from an earlier point"),
        ("$run.drained", {"run_id": "r"}, "the run's last events have been added"),
        ("$run.waiting", {"for": "worker", "task_queue": "q"}, "waits for a worker of task queue q"),
        (
            "$run.waiting",
            {
                "for": "input",
                "signals": ["approve"],
                "updates": ["ask"],
                "details": "12 EUR",
                "until": "2026-11-21T06:00:00Z",
            },
            "waits for approve, ask, until 2026-11-21 06:00:00 UTC: 12 EUR",
        ),
        ("$run.waiting", {"for": "input"}, "waits for input"),
        ("$run.waiting", {"for": "timer"}, "waits for a timer"),
        ("$run.waiting", {"for": None}, "continues"),
        (
            "$run.waiting",
            {"for": "task_retry", "attempt": 3, "failure": {"message": "no such field"}},
            "its workflow task fails and is retried (attempt 3): no such field",
        ),
        (
            "$activity.stalled",
            {"activity_type": "charge", "attempt": 2},
            "charge has stalled: no heartbeat from attempt 2",
        ),
        (
            "$activity.retrying",
            {"activity": "7", "attempt": 3, "over": True},
            "activity 7 no longer waits for attempt 3",
        ),
        ("$activity.paused", {"activity": "7", "attempt": 3, "over": True}, "activity 7 is no longer paused"),
        (
            "$activity.paused",
            {"activity_type": "charge", "attempt": 3, "by": "ops", "reason": "closed"},
            "charge is paused before attempt 3 by ops: closed",
        ),
        ("$activity.paused", {"activity_type": "charge", "attempt": 3}, "charge is paused before attempt 3"),
        (
            "$activity.retrying",
            {
                "activity_type": "charge",
                "attempt": 3,
                "next_at": "2026-11-21T05:14:55.300Z",
                "failure": {"message": "declined"},
            },
            "charge is retried at 05:14:55 (attempt 3): declined",
        ),
        (
            "$input.accepted",
            {"id": "i1", "kind": "update", "name": "approve", "by": "alice", "device": "phone"},
            "input i1 accepted: update approve by alice from phone",
        ),
        ("$input.accepted", {"id": "i1", "kind": "cancel"}, "input i1 accepted: cancel"),
        ("$input.completed", {"id": "i1", "result": {"n": 1}}, 'input i1 completed: {"n": 1}'),
        ("$input.completed", {"id": "i1"}, "input i1 completed"),
        ("$input.rejected", {"id": "i1", "failure": {"message": "too late"}}, "input i1 rejected: too late"),
        (
            "$attempt.superseded",
            {"activity": "3", "attempt": 2, "offsets": [[0, 0], [2, 1001], [7, 8], [10, 10], [12, 12], [14, 14]]},
            "attempt 2 supersedes 1,006 events (0, 2–1001, 7–8, 10, 12, …)",
        ),
        ("$input.undone", {"id": "i1", "run_id": "r"}, "a reset has undone input i1"),
        (
            "$input.requested",
            {"id": "pay-1", "reason": "approval", "message": "Pay?", "choices": ["yes", "no"]},
            "pay-1 asks for approval: Pay? (yes, no)",
        ),
        ("$input.requested", {"id": "pay-1", "reason": "approval"}, "pay-1 asks for approval"),
        ("$input.claimed", {"request": "t-1", "device": "laptop", "until": "x"}, "laptop runs the tool of t-1"),
        ("$input.answered", {"request": "pay-1", "payload": "yes", "by": "bob"}, 'pay-1 answered: "yes" by bob'),
        ("$input.resolved", {"request": "pay-1", "status": "resolved", "payload": 1}, "pay-1 resolved: 1"),
        ("$input.resolved", {"request": "pay-1", "status": "expired"}, "pay-1 expired"),
        ("$session.settled", {}, "settled: no run is open"),
        ("$session.closed", {}, "closed: nothing more can be appended"),
        ("$gap", {"missed": 1234, "first_available": 9}, "1,234 events can no longer be read"),
        ("$run.closed", {"state": 1}, '{"state": 1}'),
        ("$run.closed", None, "null"),
        ("$of.tomorrow", {"a": 1}, '{"a": 1}'),
    ],
)
def test_wakelines_own_events_are_told_in_words_where_they_are_known(topic: str, data: Any, words: str) -> None:
    assert shown(event(topic, data)) == f"{topic} {words}"


@pytest.mark.parametrize("data", ["x" * 5000, "\u5bff\u53f8" * 50, {"a": list(range(5000))}])
def test_nothing_is_wider_than_the_terminal(data: Any) -> None:
    line = Lines(60).line(event("status", data))
    assert line.cell_len <= 60
    assert line.plain.endswith("…")
    assert Lines(60).line(event("t" * 100, data)).cell_len == 60


def test_the_terminal_is_not_commanded_by_what_is_shown() -> None:
    failure = {"message": "\x1b[2Jgone\r\n\u202etxt", "type": "\x9b31m"}
    for line in (
        shown(event("status", {"\x1b]0;title\x07": "\x9b2J\u202e"})),
        shown(event("$run.closed", CLOSED | {"status": "failed", "failure": failure})),
    ):
        assert not set(line) & {"\x1b", "\x9b", "\x07", "\r", "\n", "\u202e"}


def test_a_topic_has_one_colour() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200)

    def coloured(topic: str) -> str:
        with console.capture() as capture:
            console.print(Lines().line(event(topic, 1)))
        return capture.get()

    assert coloured("status") == coloured("status")
    assert len({coloured(topic).replace(topic, "") for topic in ("status", "delta", "step", "progress")}) > 1
