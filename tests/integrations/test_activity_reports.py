"""What is told of activities, where a worker would be hard put to show it: zombies, and what Temporal will decide."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from tests.integrations.support import events_of, under
from tests.support import Served
from wakeline.integrations.activity_reports import failure_of, state_after
from wakeline.integrations.temporal import SessionInterceptor

ONCE = RetryPolicy(maximum_attempts=1)
SECOND = timedelta(seconds=1)


def info(**changed: Any) -> activity.Info:
    now = {"scheduled_time": datetime.now(UTC), "schedule_to_close_timeout": None}
    return replace(ActivityEnvironment.default_info(), **{**now, **changed})


async def test_an_attempt_that_is_over_cannot_tell_anything_any_more(served: Served) -> None:
    around = SessionInterceptor(served.url)
    first = around.begin_report(info(attempt=1))
    assert first is not None
    await first.begun()
    second = around.begin_report(info(attempt=2))
    assert second is not None
    second.add("completed")
    await second.end()
    first.add("failed")
    await first.end()
    await around.drain()
    told = under(await events_of(served, info().workflow_id or ""), "activity")
    assert [(one["attempt"], one["state"]) for one in told] == [(1, "started"), (2, "started"), (2, "completed")]


async def test_activities_with_any_id_are_told(served: Served) -> None:
    around = SessionInterceptor(served.url)
    names = ["Zürich zuerst", "x" * 900, "a b", "plain"]
    for name in names:
        report = around.begin_report(info(activity_id=name))
        assert report is not None
        report.add("completed")
        await report.end()
    events = await events_of(served, info().workflow_id or "")
    assert [told["activity_id"] for told in under(events, "activity")] == [name for name in names for _ in range(2)]
    assert len({event["key"] for event in events}) == len(names)


async def test_an_activity_without_a_workflow_is_told_only_where_it_has_a_session(served: Served) -> None:
    alone = info(workflow_id=None, workflow_run_id=None, workflow_type=None, activity_run_id="r1")
    assert SessionInterceptor(served.url).begin_report(alone) is None
    report = SessionInterceptor(served.url, session=lambda info: "alone").begin_report(alone)
    assert report is not None
    report.add("completed")
    await report.end()
    assert len(under(await events_of(served, "alone"), "activity")) == 2


@pytest.mark.parametrize(
    ("changed", "error", "state"),
    [
        ({}, ValueError(), "retrying"),
        ({"retry_policy": RetryPolicy()}, ValueError(), "retrying"),
        ({"retry_policy": ONCE}, ValueError(), "failed"),
        ({"retry_policy": RetryPolicy(maximum_attempts=2), "attempt": 1}, ValueError(), "retrying"),
        ({"retry_policy": RetryPolicy(maximum_attempts=2), "attempt": 2}, ValueError(), "failed"),
        ({}, ApplicationError("no", non_retryable=True), "failed"),
        (
            {"retry_policy": RetryPolicy(non_retryable_error_types=["Fatal"])},
            ApplicationError("", type="Fatal"),
            "failed",
        ),
        ({"retry_policy": RetryPolicy(non_retryable_error_types=["KeyError"])}, KeyError(), "failed"),
        ({"retry_policy": RetryPolicy(), "schedule_to_close_timeout": SECOND * 60}, ValueError(), "retrying"),
        ({"retry_policy": RetryPolicy(), "schedule_to_close_timeout": SECOND / 2}, ValueError(), "failed"),
        (
            {"retry_policy": RetryPolicy(), "schedule_to_close_timeout": SECOND * 60, "attempt": 5_000},
            ValueError(),
            "failed",
        ),
        (
            {"retry_policy": RetryPolicy(), "schedule_to_close_timeout": SECOND * 60},
            ApplicationError("later", next_retry_delay=timedelta(hours=1)),
            "failed",
        ),
        # Temporal cancels activities of a worker that stops; nobody asked for it, so they run again.
        ({}, asyncio.CancelledError(), "retrying"),
    ],
)
def test_what_has_become_of_an_activity_is_told_as_temporal_decides(
    changed: dict[str, Any], error: BaseException, state: str
) -> None:
    assert ActivityEnvironment().run(state_after, info(**changed), error) == state


def test_a_failure_of_any_size_can_be_told() -> None:
    told = failure_of(ValueError("x" * 10_000_000))
    assert told["type"] == "ValueError"
    assert len(told["message"]) == 2_000
