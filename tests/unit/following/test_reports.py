"""The events that report a change of a run's state, each once, also if a gateway was stopped while it reported."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.following.followed import run
from wakeline.gateway.following.life.reports import Reported, changes
from wakeline.gateway.sessions import Run, RunState

RETRIED = run("a", retrying={"1": 2}, failed={"1": 5})
PAUSED = run("a", paused={"1": (2, 7)})
INPUT = {"for": "input"}


def activity(state: str, attempt: int, **how: Any) -> dict[str, Any]:
    return {"activity": "1", "attempt": attempt, "state": state, "failure": None, "next_at": None} | how


@pytest.mark.parametrize(
    ("recorded", "now", "since", "expected"),
    [
        pytest.param(run("a"), RunState(), 0, [], id="nothing has changed"),
        pytest.param(RETRIED, RunState({"1": activity("retrying", 2)}), 5, [], id="a retry was reported before"),
        pytest.param(
            run("a"),
            RunState({"1": activity("retrying", 2, next_at="soon")}),
            5,
            [("activity.retrying:1/2/5", {"activity": "1", "attempt": 2, "failure": None, "next_at": "soon"})],
            id="a retry",
        ),
        pytest.param(
            RETRIED,
            RunState({"1": activity("retrying", 2)}),
            6,
            [("activity.retrying:1/2/6", {"activity": "1", "attempt": 2, "failure": None, "next_at": None})],
            id="a retry of another activity with the same id",
        ),
        pytest.param(
            RETRIED,
            RunState({"1": activity("running", 2)}),
            5,
            [("activity.retrying:1/over/2/5", {"activity": "1", "attempt": 2, "over": True})],
            id="the next attempt runs",
        ),
        pytest.param(
            RETRIED,
            RunState({"1": activity("paused", 2, by="me")}),
            7,
            [
                ("activity.retrying:1/over/2/5", {"activity": "1", "attempt": 2, "over": True}),
                ("activity.paused:1/2/7", {"activity": "1", "attempt": 2, "by": "me"}),
            ],
            id="a pause ends a retry first",
        ),
        pytest.param(
            PAUSED,
            RunState(),
            0,
            [("activity.paused:1/over/2/7", {"activity": "1", "attempt": 2, "over": True})],
            id="a paused activity has ended",
        ),
        pytest.param(
            run("a"),
            RunState({}, {"for": "worker", "task_queue": "q"}, "now"),
            0,
            [("run.waiting:now/worker/q", {"for": "worker", "task_queue": "q"})],
            id="it waits",
        ),
        pytest.param(run("a", waiting=INPUT), RunState({}, INPUT, "now"), 0, [], id="it still waits"),
        pytest.param(
            run("a", waiting=INPUT),
            RunState({}, None, "now"),
            0,
            [("run.waiting:now/None/", {"for": None})],
            id="it waits no more",
        ),
    ],
)
def test_each_change_is_one_event(recorded: Run, now: RunState, since: int, expected: list[Any]) -> None:
    before, present = Reported.recorded(recorded), Reported.present(now, {"1": since})
    reported = [
        (f"{change.report.topic[1:]}:{change.name}", change.report.data)
        for change in changes("run-of-a", before, now, present)
    ]
    assert reported == expected
    after = Reported.recorded(run("a", **present.record()))
    assert not [*changes("run-of-a", after, now, present)]


@pytest.mark.parametrize("appended", range(3))
def test_a_change_that_may_be_in_the_log_is_reported_again_or_its_end(appended: int) -> None:
    retrying = RunState({"1": activity("retrying", 2)}, INPUT, "then")
    made = [*changes("run-of-a", Reported.recorded(run("a")), retrying, Reported.present(retrying, {"1": 5}))]
    assert len(made) == 2
    before = made[appended - 1].meanwhile if appended else Reported.recorded(run("a"))
    assert before is not None
    over = [change.report for change in changes("run-of-a", before, RunState(), Reported.present(RunState(), {}))]
    assert [report.topic for report in over] == ["$activity.retrying", "$run.waiting"][:appended]
    again = [change.name for change in changes("run-of-a", before, retrying, Reported.present(retrying, {"1": 5}))]
    assert again == [change.name for change in made]


def test_an_attempt_that_has_stalled_is_reported_after_its_retry_and_is_no_state() -> None:
    state, stalled = RunState({"1": activity("retrying", 2)}, INPUT), {"1/1/5": {"activity": "1", "attempt": 1}}
    made = [*changes("run-of-a", Reported.recorded(run("a")), state, Reported.present(state, {"1": 5}), stalled)]
    assert [change.report.topic for change in made] == ["$activity.retrying", "$activity.stalled", "$run.waiting"]
    assert [change.meanwhile is not None for change in made] == [True, False, True]
