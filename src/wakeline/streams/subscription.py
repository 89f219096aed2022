"""The reading side: every event from an offset on, over disconnects and into the runs that follow, to the end.

A host is read by query, which costs no history and waits for nothing. The interval between queries follows the
stream: short while events come, growing with the silence. A host without the query (older ones) is read by update. A
call that waits in the server for the run to close tells when to read what is left and stop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from temporalio.client import (
    Client,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from wakeline.streams.errors import StreamUnavailableError
from wakeline.streams.notices import StreamEnd, StreamGap
from wakeline.streams.rpc import backoff, is_transient
from wakeline.streams.runs import Run, RunClose
from wakeline.streams.wire import POLL, STREAM_DRAINING, TRUNCATED_OFFSET, PollResult

logger = logging.getLogger(__name__)

# The next look comes after an eighth of the silence so far: an event is never late by more than that.
_PATIENCE = 8
# How long a reader that was told "no such run" or "update failed" waits to hear that the run has closed.
_CLOSE_GRACE = 5.0
_DRAIN_TIMEOUT = 30.0
_NEVER_BEGAN = "closed before WorkflowTaskStarted"
# Failing is logged after this, and then once a minute.
_QUIET_FOR = 3.0
_WARN_EVERY = 60.0


class Subscription:
    """One reader of one stream."""

    def __init__(
        self,
        client: Client,
        workflow_id: str,
        *,
        run_id: str | None,
        follow: bool,
        topics: tuple[str, ...],
        offset: int,
        poll_cooldown: timedelta,
        retry_timeout: timedelta | None,
        on_end: Callable[[StreamEnd], None] | None,
        on_gap: Callable[[StreamGap], None] | None = None,
    ) -> None:
        self._client = client
        self._workflow_id = workflow_id
        self._run_id = run_id
        self._follow = follow
        self._topics = topics
        self._offset = max(0, offset)
        cooldown = max(0.01, poll_cooldown.total_seconds())
        self._shortest = cooldown / 5
        self._longest = cooldown * 10
        self._retry_timeout = retry_timeout
        self._on_end = on_end
        self._on_gap = on_gap
        # A filtered answer does not show whether what lies between two of its events was skipped or truncated. Who wants
        # to be told of gaps therefore reads all topics, and the filter is applied here.
        self._asked_topics = topics if on_gap is None else ()
        # Set when the host has said that our offset is truncated: it answers the offset 0 with the oldest it has.
        self._ask_oldest = False
        # Where this reader came into the run by continue-as-new: what lies before was carried into it.
        self._entered_at = 0
        self._drained = False
        self._by_update = False
        self._pause = 0.0
        self._last_event = time.monotonic()
        self._failures = 0
        self._failing_since = 0.0
        self._warned_at = 0.0

    async def results(self) -> AsyncGenerator[PollResult, None]:
        """The answers, in order, until the stream ends."""
        run_id = self._run_id or await self._find_run()
        while True:
            run = Run(self._client, self._workflow_id, run_id)
            watch = asyncio.ensure_future(run.closed())
            try:
                while not watch.done():
                    result = await self._next(run, watch)
                    if result is not None:
                        yield self._took(result, run_id)
                close = watch.result()
            finally:
                watch.cancel()
            if close.follows_by == "continue_as_new" and self._follow:
                self._entered_at = self._offset
            else:
                async for result in self._drain(run):
                    yield self._took(result, run.run_id)
                if close.follows_by is None or not self._follow:
                    break
                self._begin_anew(close)
            # The next run may be on another version of the host's code.
            run_id, self._by_update, self._pause = close.next_run_id, False, 0.0
        if self._on_end is not None:
            self._on_end(StreamEnd(close.status, close.failure, run.run_id, self._drained))

    async def _find_run(self) -> str:
        handle = self._client.get_workflow_handle(self._workflow_id)
        while True:
            try:
                return (await handle.describe()).run_id or ""
            except RPCError as error:
                await self._recover(error)

    async def _next(self, run: Run, watch: asyncio.Future[RunClose]) -> PollResult | None:
        """One answer, or nothing when the run closed or is to be asked again."""
        ask = asyncio.ensure_future(self._ask(run))
        try:
            either: set[asyncio.Future[Any]] = {ask, watch}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ask.done() and self._by_update:
                # The run's last task may have answered this update too, and nothing else will tell what it said.
                await asyncio.wait({ask}, timeout=_CLOSE_GRACE)
            if not ask.done():
                return None
            result = ask.result()
        except WorkflowQueryFailedError as error:
            if not _has_no_handler(error):
                raise
            self._by_update = True
            return None
        except WorkflowUpdateFailedError as error:
            await self._on_update_failed(error, watch)
            return None
        except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                # An update to a run that has just closed is answered with this too.
                await asyncio.wait({watch}, timeout=_CLOSE_GRACE)
            if not watch.done():
                await self._recover(error)
            return None
        finally:
            ask.cancel()
        self._failures = 0
        return result

    async def _ask(self, run: Run) -> PollResult:
        if self._by_update:
            offset = 0 if self._ask_oldest else self._offset
            return await run.wait_for_events(self._asked_topics, offset, delay=self._pause)
        return await run.read(self._asked_topics, self._offset, delay=self._pause, failures=self._failures)

    async def _on_update_failed(self, error: WorkflowUpdateFailedError, watch: asyncio.Future[RunClose]) -> None:
        kind = getattr(error.cause, "type", None)
        if kind == TRUNCATED_OFFSET:
            self._ask_oldest, self._pause = True, 0.0
        elif kind == STREAM_DRAINING:
            await asyncio.wait({watch}, timeout=self._shortest * 5)
        else:
            await asyncio.wait({watch}, timeout=_CLOSE_GRACE)
            if not watch.done():
                raise error

    def _took(self, result: PollResult, run_id: str) -> PollResult:
        now = time.monotonic()
        first = result.items[0].offset if result.items else result.next_offset
        if first > self._offset and not self._asked_topics:
            self._tell_gap("truncated", first, run_id)
        # An offset in the future stays there; the query answers it with the end of the stream.
        moved = result.next_offset > self._offset
        self._offset = max(self._offset, result.next_offset)
        self._ask_oldest = False
        if moved:
            self._last_event = now
        if result.more_ready:
            self._pause = 0.0
        elif self._by_update:
            self._pause = self._shortest * 5
        else:
            self._pause = min(max((now - self._last_event) / _PATIENCE, self._shortest), self._longest)
        if self._topics and not self._asked_topics:
            return replace(result, items=[item for item in result.items if item.topic in self._topics])
        return result

    def _begin_anew(self, close: RunClose) -> None:
        """Go on in a run that does not carry this one's events: at the first that may differ from what was read."""
        reason = close.follows_by
        assert reason is not None
        assert reason != "continue_as_new"
        # A retry begins with what its run began with; a reset may go back to an earlier run.
        resumed = 0 if reason == "reset" else self._entered_at
        self._tell_gap(reason, resumed, close.next_run_id)
        self._offset, self._entered_at = resumed, resumed

    def _tell_gap(self, reason: Literal["truncated", "retry", "cron", "reset"], resumed: int, run_id: str) -> None:
        if self._on_gap is not None:
            self._on_gap(StreamGap(reason, self._offset, resumed, run_id))
        elif reason != "truncated":
            logger.info("Workflow %s goes on in run %s (%s); its stream begins anew", self._workflow_id, run_id, reason)
        elif self._offset:
            logger.warning(
                "Events %d to %d of workflow %s were truncated before they were read",
                self._offset,
                resumed - 1,
                self._workflow_id,
            )

    async def _recover(self, error: RPCError | WorkflowUpdateRPCTimeoutOrCancelledError) -> None:
        """Wait before the next try, or raise what will not pass."""
        if isinstance(error, RPCError) and not is_transient(error, reading=True):
            raise error
        now = time.monotonic()
        if self._failures == 0:
            self._failing_since = now
            self._warned_at = now + _QUIET_FOR - _WARN_EVERY
        self._failures += 1
        failing_for = now - self._failing_since
        if self._retry_timeout is not None and failing_for >= self._retry_timeout.total_seconds():
            raise StreamUnavailableError(
                f"workflow {self._workflow_id} could not be read for {failing_for:.0f} s: {error}"
            ) from error
        if now - self._warned_at > _WARN_EVERY:
            self._warned_at = now
            logger.warning("Reading workflow %s fails and is tried again: %s", self._workflow_id, error)
        await asyncio.sleep(backoff(self._failures))

    async def _drain(self, run: Run) -> AsyncGenerator[PollResult, None]:
        """What is left in a closed run."""
        self._drained = False
        self._failures = 0
        more = not self._by_update
        deadline = time.monotonic() + _DRAIN_TIMEOUT
        while more:
            try:
                result = await run.read(self._asked_topics, self._offset, failures=self._failures, closed=True)
            except WorkflowQueryFailedError as error:
                if not _has_no_handler(error):
                    raise
                more = False
            except RPCError as error:
                if not is_transient(error, reading=True):
                    raise
                # A run that closed before its first task has published nothing, and never answers.
                self._drained = _NEVER_BEGAN in error.message
                more = not self._drained and time.monotonic() < deadline
                if not (more or self._drained):
                    logger.warning("Workflow %s closed and cannot be read to its end: %s", self._workflow_id, error)
                self._failures += 1
                await asyncio.sleep(backoff(self._failures))
            else:
                self._failures = 0
                more = result.more_ready
                self._drained = not more
                yield result


def _has_no_handler(error: WorkflowQueryFailedError) -> bool:
    # Hosts say it each in their words; all of them name the query.
    return POLL in str(error)
