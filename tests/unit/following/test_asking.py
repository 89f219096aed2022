"""Temporal is asked until it answers, with pauses in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.workflowservice.v1 import DescribeActivityExecutionResponse, PollActivityExecutionResponse
from temporalio.service import RPCError, RPCStatusCode

from tests.unit.following.followed import run
from wakeline.gateway.following.following import Limits
from wakeline.gateway.following.watching import asking
from wakeline.gateway.following.watching.standalone import activity_ended
from wakeline.retry import Backoff


class Clock:
    """Tells a time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Busy:
    """A connection to a Temporal that has too many calls: each one is to wait for a minute, and five fail."""

    namespace = "default"

    def __init__(self, clock: Clock, *, lasts: float = 0.0) -> None:
        self.client = SimpleNamespace(workflow_service=self)
        self.failures: list[int] = []
        self._clock = clock
        self._lasts = lasts

    async def until_calm(self) -> None:
        self._clock.now += 60

    async def after_failure(self, backoff: Backoff) -> None:
        backoff.pause()
        self.failures.append(backoff.failures)

    async def poll_activity_execution(self, *_: Any, **__: Any) -> PollActivityExecutionResponse:
        self._clock.now += self._lasts if len(self.failures) == 2 else 0.0
        if len(self.failures) < 5:
            raise RPCError("too many calls", RPCStatusCode.RESOURCE_EXHAUSTED, b"")
        answer = PollActivityExecutionResponse()
        answer.outcome.failure.message = "enough"
        return answer

    async def describe_activity_execution(self, *_: Any, **__: Any) -> DescribeActivityExecutionResponse:
        return DescribeActivityExecutionResponse()


@pytest.mark.parametrize(
    ("lasts", "failures"),
    [
        pytest.param(0.0, [1, 2, 3, 4, 5], id="grow, however long Temporal has too many calls"),
        pytest.param(40.0, [1, 2, 1, 2, 3], id="are short again after a call that has lasted long"),
    ],
)
async def test_the_pauses_between_failed_calls(
    lasts: float, failures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    busy, parts = Busy(clock, lasts=lasts), SimpleNamespace(limits=Limits())
    monkeypatch.setattr(asking, "time", clock)
    await activity_ended(cast(Any, SimpleNamespace(connection=busy, parts=parts, run=run("a"))))
    assert busy.failures == failures
