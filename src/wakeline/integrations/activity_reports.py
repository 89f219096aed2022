"""Reports of activities' states to their sessions; a failed report never fails an activity."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, Literal, TypeAlias

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from wakeline.background import begin
from wakeline.errors import AttemptFencedError
from wakeline.logs import get_logger
from wakeline.presentable import said
from wakeline.publisher import SessionPublisher
from wakeline.publisher.activity import publisher_name

State: TypeAlias = Literal["started", "retrying", "completed", "failed", "canceled"]

_logger = get_logger("wakeline.integrations.temporal")
_MOST_UNDER_WAY: Final = 1_000
_LONGEST_TEXT: Final = 2_000
# The worker's clock starts when it receives the task, Temporal's when it sends it.
_EARLY_SECONDS: Final = 0.5


class ActivityReports:
    """Reports of the activities of one process.

    Args:
        make: Makes the publisher of one attempt's reports.
        topic: The topic of the reports.
        patience: The longest time that an activity waits for its report to be durable.
    """

    def __init__(self, make: Callable[[activity.Info], SessionPublisher], topic: str, patience: timedelta) -> None:
        self._make = make
        self._topic = topic
        self._patience = patience.total_seconds()
        self._under_way: set[asyncio.Task[None]] = set()
        self._away = False
        self._refused = False

    def begin(self, info: activity.Info) -> Report | None:
        """Report that an attempt has started, without waiting.

        Returns:
            None if too many reports are already under way, because the gateway accepts none.
        """
        if len(self._under_way) >= _MOST_UNDER_WAY:
            _logger.debug("no report of activity %s: %d are under way", info.activity_id, _MOST_UNDER_WAY)
            return None
        report = Report(self, info)
        report.delivery = begin(self._deliver(report, info), self._under_way)
        report.add("started")
        return report

    async def wait_for(self, done: asyncio.Future[Any]) -> None:
        """Wait until a report is durable.

        The wait lasts at most `patience`, and no time while the gateway is known to be away.
        """
        if self._away or done.done():
            return
        await asyncio.wait({done}, timeout=self._patience)
        if not done.done() and not self._away:
            self._away = True
            _logger.warning(
                "the gateway accepted no report within %.1f s; activities continue without waiting for their reports",
                self._patience,
            )

    async def drain(self) -> None:
        """Wait for the reports under way, at most for `patience`, and abandon the rest."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=self._patience)
        given_up = set(self._under_way)
        for task in given_up:
            task.cancel()
        if given_up:
            await asyncio.wait(given_up, timeout=self._patience)
            _logger.warning("%d reports of activities were not delivered before the worker stopped", len(given_up))

    async def _deliver(self, report: Report, info: activity.Info) -> None:
        try:
            async with self._make(info) as publisher:
                topic = publisher.topic(self._topic, keyed=True)
                while (state := await report.next()) is not None:
                    await topic.publish(state, key=publisher_name(info))
                    await publisher.flush()
                    report.has_started()
            self._away = self._refused = False
        except AttemptFencedError:
            _logger.debug("attempt %d of activity %s was superseded", info.attempt, info.activity_id)
        except Exception as error:  # noqa: BLE001 - no failure of a report may reach the activity
            # Warn once until a report is delivered again: with a bad token every activity would log a warning.
            level, self._refused = (logging.DEBUG if self._refused else logging.WARNING), True
            _logger.log(level, "the state of activity %s could not be reported: %s", info.activity_id, error)
        finally:
            report.has_started()


class Report:
    """The report of one attempt.

    Attributes:
        started: Done when the start is durable, or has failed.
        delivery: Done when the whole report is durable, or has failed.
    """

    delivery: asyncio.Task[None]

    def __init__(self, reports: ActivityReports, info: activity.Info) -> None:
        self._reports = reports
        self._info = info
        self._states: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._began = monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the attempt began."""
        return monotonic() - self._began

    def add(self, state: State, failure: dict[str, str] | None = None) -> None:
        """Add a state to the report, without waiting."""
        info = self._info
        event = {
            "activity_type": info.activity_type,
            "activity_id": info.activity_id,
            "attempt": info.attempt,
            "state": state,
        }
        self._states.put_nowait(event if failure is None else {**event, "failure": failure})

    async def next(self) -> dict[str, Any] | None:
        """Return the next state; None after the last."""
        return await self._states.get()

    def has_started(self) -> None:
        """Record that the start is durable, or has failed."""
        if not self.started.done():
            self.started.set_result(None)

    async def begun(self) -> None:
        """Wait until the start is durable, so that the activity's own events come after it."""
        await self._reports.wait_for(self.started)

    def close(self) -> None:
        """End the report."""
        self._states.put_nowait(None)

    async def end(self) -> None:
        """End the report and wait until it is durable."""
        self.close()
        # The activity has its result. A cancellation that arrives during this wait must not replace it.
        with suppress(asyncio.CancelledError):
            await self._reports.wait_for(self.delivery)


def failure_of(error: BaseException) -> dict[str, str]:
    """Return an error as devices receive it, with the fields of a run's failure."""
    message = error.message if isinstance(error, ApplicationError) else said(error)
    kind = error.type if isinstance(error, ApplicationError) else None
    failure = {"message": message[:_LONGEST_TEXT], "type": kind or type(error).__name__}
    if error.__cause__ is not None:
        failure["cause"] = (said(error.__cause__) or type(error.__cause__).__name__)[:_LONGEST_TEXT]
    return failure


def state_after(info: activity.Info, error: BaseException) -> State:
    """Return the state of an activity whose attempt ended in an error."""
    if isinstance(error, asyncio.CancelledError | CancelledError):
        details = activity.cancellation_details()
        if details is not None and (details.cancel_requested or details.not_found):
            return "canceled"
    return "retrying" if _will_retry(info, error) else "failed"


def time_out_of(info: activity.Info, seconds: float) -> TimeoutError | None:
    """Return the time-out that has ended the attempt, as far as its worker knows; None for none.

    Temporal answers a heartbeat after a time-out as it does after the workflow's end: the attempt does not exist. The duration
    of the attempt distinguishes the two.

    Args:
        info: The attempt.
        seconds: How long it has run so far.
    """
    details = activity.cancellation_details()
    if details is None or details.cancel_requested:
        return None
    longest = info.start_to_close_timeout
    took_too_long = bool(longest) and longest is not None and seconds > longest.total_seconds() - _EARLY_SECONDS
    if details.not_found and took_too_long:
        return TimeoutError("the attempt took longer than its start-to-close time-out")
    if details.timed_out:
        return TimeoutError("the attempt timed out")
    return None


def _will_retry(info: activity.Info, error: BaseException) -> bool:
    """Return whether Temporal will retry, as far as the activity can know."""
    if isinstance(error, ApplicationError) and error.non_retryable:
        return False
    policy = info.retry_policy
    if policy is None:
        return True
    kind = error.type if isinstance(error, ApplicationError) else type(error).__name__
    if kind in (policy.non_retryable_error_types or ()):
        return False
    if policy.maximum_attempts and info.attempt >= policy.maximum_attempts:
        return False
    if info.schedule_to_close_timeout is None or not info.schedule_to_close_timeout:
        return True
    pause = error.next_retry_delay if isinstance(error, ApplicationError) else None
    if pause is None:
        longest = policy.maximum_interval or policy.initial_interval * 100
        # The limit of 100 keeps the power within a float; the longest interval is reached long before.
        factor = policy.backoff_coefficient ** min(info.attempt - 1, 100)
        pause = min(policy.initial_interval * min(factor, longest / policy.initial_interval), longest)
    return datetime.now(UTC) + pause < info.scheduled_time + info.schedule_to_close_timeout
