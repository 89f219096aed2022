"""The runs of one session: which one an execution belongs to, and their order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wakeline.gateway.following.life.order import Belongs, Execution, before, belongs, was_reset
from wakeline.gateway.sessions import Run

RUN = Run("chat", "two", "two", "two", "Chat", "2026-11-29T00:00:02.000Z")


def other(**how: Any) -> Run:
    earlier = {"run": "one", "run_id": "one", "started_at": "2026-11-29T00:00:01.000Z"}
    return msgspec.structs.replace(RUN, **{**earlier, **how})


@pytest.mark.parametrize(
    ("run", "comes_before"),
    [
        pytest.param(other(), True, id="an earlier run of the workflow, although it is open"),
        pytest.param(other(status="completed"), False, id="not one that has ended"),
        pytest.param(other(status="completed", owed=True), True, id="unless its rest is not read"),
        pytest.param(other(started_at="2026-11-29T00:00:03.000Z"), False, id="not a later one"),
        pytest.param(other(workflow_id="order"), False, id="not an open run of another workflow"),
        pytest.param(other(workflow_id="order", status="failed", owed=True), True, id="but the rest of any workflow"),
        pytest.param(other(namespace="elsewhere"), False, id="not an open run of another namespace"),
        pytest.param(RUN, False, id="not the run itself"),
        pytest.param(other(started_at=RUN.started_at), True, id="of two with one start, the one with the lesser name"),
        pytest.param(other(run="zero", started_at=RUN.started_at), False, id="and not the one with the greater name"),
    ],
)
def test_a_run_comes_before_another(run: Run, comes_before: bool) -> None:
    assert (before(RUN, [run]) != []) is comes_before


OPEN, ENDED = other(run="first", run_id="second"), other(run="first", run_id="second", status="completed")


def found(run_id: str = "third", **how: Any) -> Execution:
    return Execution(run_id, "first", "", **how)


@pytest.mark.parametrize(
    ("execution", "runs", "expected"),
    [
        pytest.param(found(), [], Belongs(None), id="a chain without a run begins one"),
        pytest.param(found(), [other(run="zero")], Belongs(None), id="so it does beside runs of other chains"),
        pytest.param(found(), [OPEN], Belongs(OPEN), id="an open run of the chain has it"),
        pytest.param(
            found("second"), [ENDED], Belongs(ENDED), id="an ended run has the Temporal run that it ended with"
        ),
        pytest.param(
            found("again"),
            [OPEN, other(run="again", run_id="again", chain="first")],
            Belongs(other(run="again", run_id="again", chain="first")),
            id="also beside an open run whose end the log alone has",
        ),
        pytest.param(
            found(ended=["first"]), [OPEN], Belongs(None, asks=True), id="a run whose end is in the log is not open"
        ),
        pytest.param(found(), [ENDED], Belongs(None, asks=True), id="after an end, the latest run is asked for"),
        pytest.param(found(latest=True), [ENDED], Belongs(None), id="the latest run after an end begins another run"),
        pytest.param(found(latest=False), [ENDED], Belongs(ENDED), id="an earlier one belongs to the ended run"),
        pytest.param(
            found(continued=True, latest=True),
            [ENDED],
            Belongs(ENDED),
            id="so does one that the log has as a continuation",
        ),
        pytest.param(
            found(latest=False),
            [ENDED, other(run="again", run_id="again", chain="first", status="failed")],
            Belongs(other(run="again", run_id="again", chain="first", status="failed")),
            id="after two ends it belongs to the last one",
        ),
        pytest.param(
            found()._replace(namespace="elsewhere"), [OPEN], Belongs(None), id="another namespace has other chains"
        ),
    ],
)
def test_an_execution_belongs_to(execution: Execution, runs: list[Run], expected: Belongs) -> None:
    assert belongs(execution, runs) == expected


@pytest.mark.parametrize(
    ("execution", "runs", "reset"),
    [
        pytest.param(found("first"), [], False, id="a chain's first run"),
        pytest.param(found(), [], False, id="a later run of a chain that is found late"),
        pytest.param(found(), [ENDED], True, id="a chain with an ended run"),
        pytest.param(found(ended=["first"]), [], True, id="a chain whose end the log alone still has"),
        pytest.param(found(ended=["first"], continued=True), [], False, id="a continuation that the log has, too"),
        pytest.param(found("first", ended=["first"]), [], False, id="the first run itself, whose end the log has"),
    ],
)
def test_a_run_that_an_execution_begins_is_a_reset(execution: Execution, runs: list[Run], reset: bool) -> None:
    assert was_reset(execution, runs) is reset
