"""The order of the runs of one session."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wakeline.gateway.following.life.order import before
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
