"""The reading side: every event from an offset on, over disconnects and later runs.

A host is read by query, which costs no history and does not wait. A call that waits in the server for the run's history
shows when there may be something to read, and when the run has closed, so that the rest is read. A host without the
query (older ones) is read by update.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from temporalio.client import Client
from temporalio.service import RPCError

from wakeline.logs import get_logger
from wakeline.outages import Outage
from wakeline.streams.budget import update_pause
from wakeline.streams.errors import StreamUnavailableError
from wakeline.streams.notices import StreamEnd, StreamGap
from wakeline.streams.pace import Pace
from wakeline.streams.runs import Run, run_of
from wakeline.streams.wire import PollResult
from wakeline.temporal.endings import Ending
from wakeline.temporal.failures import backoff
from wakeline.temporal.refusals import REFUSED, Refusal, refusal

logger = get_logger(__name__)

# How long a host that is about to continue as new takes to do so.
_DRAINING_PAUSE = 0.1
# Between two updates of a host that answers each at once with `canceled`.
_CANCELED_PAUSE = 0.25
# How long a reader waits for the run's close after the answer "no such run" or "update failed".
_CLOSE_GRACE = 5.0
_DRAIN_TIMEOUT = 30.0
# The answers of a host that may be read by update.
_BY_UPDATE = frozenset({Refusal.NO_HANDLER, Refusal.NOT_BY_QUERY, Refusal.ENCODED})
_NO_UPDATES_LEFT = (
    "It can be read again when it continues as new: its host answers no poll query, so it is read by update, "
    "and its run has accepted as many updates as the server allows"
)


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
        retry_timeout: timedelta | None = None,
        on_end: Callable[[StreamEnd], None] | None = None,
        on_gap: Callable[[StreamGap], None] | None = None,
    ) -> None:
        self._client = client
        self._workflow_id = workflow_id
        self._run_id = run_id
        self._follow = follow
        self._topics = topics
        self._offset = max(0, offset)
        self._pace = Pace(poll_cooldown)
        self._retry_timeout = retry_timeout
        self._on_end = on_end
        self._on_gap = on_gap
        # A filtered answer does not show whether the events between two of its own were skipped or truncated. A reader
        # with `on_gap` therefore reads all topics, and the filter is applied here.
        self._asked_topics = topics if on_gap is None else ()
        # Set when the host has answered that our offset is truncated: it answers the offset 0 with its oldest event.
        self._ask_oldest = False
        # The offset at which this reader entered the run by continue-as-new: earlier events were carried into it.
        self._entered_at = 0
        self._drained = False
        self._by_update = False
        # The last answer had all events up to this workflow task; 0 to ask at once.
        self._task = 0
        self._backoff = backoff()
        self._outage = Outage(logger, f"Reading workflow {workflow_id}")

    async def results(self) -> AsyncGenerator[PollResult, None]:
        """Yield the answers, in order, until the stream ends."""
        run_id = self._run_id or await self._find_run()
        while True:
            run = run_of(self._client, self._workflow_id, run_id)
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
            run_id, self._by_update, self._task = close.next_run_id, False, 0
            self._outage.over()
            self._backoff.reset()
            self._pace.begin()
        if self._on_end is not None:
            assert close.closed_as is not None  # its last event was read
            self._on_end(StreamEnd(close.closed_as, close.message, run.run_id, self._drained))

    async def _find_run(self) -> str:
        handle = self._client.get_workflow_handle(self._workflow_id)
        while True:
            try:
                return (await handle.describe()).run_id or ""
            except RPCError as error:
                await self._recover(error)

    async def _next(self, run: Run, watch: asyncio.Future[Ending]) -> PollResult | None:
        """Return one answer; None if the run closed or is to be asked again."""
        await asyncio.wait({watch}, timeout=self._pace.rest)
        if watch.done():
            return None
        ask = asyncio.ensure_future(self._ask(run))
        try:
            either: set[asyncio.Future[Any]] = {ask, watch}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ask.done() and self._by_update:
                # The run's last task may have answered this update too, and its answer cannot be had otherwise.
                await asyncio.wait({ask}, timeout=_CLOSE_GRACE)
            if not ask.done():
                return None
            result = ask.result()
        except REFUSED as error:
            await self._refused(error, run, watch)
            return None
        finally:
            ask.cancel()
        self._outage.over()
        self._backoff.reset()
        return result

    async def _ask(self, run: Run) -> PollResult:
        if self._by_update:
            result = await run.wait_for_events(self._asked_topics, 0 if self._ask_oldest else self._offset)
            self._pace.updated(more=result.more_ready, used=run.updates)
            return result
        # Known again with the next answer: after a failure, the next poll does not wait for news.
        task, self._task = self._task, 0
        within = self._pace.patience(followed=run.tells)
        answer = await run.read(
            self._asked_topics, self._offset, after=task, within=within, failures=self._backoff.failures
        )
        self._task = answer.task
        result = answer.result
        self._pace.looked(found=result.next_offset > self._offset, more=result.more_ready, seconds=answer.seconds)
        return result

    async def _refused(self, error: Exception, run: Run, watch: asyncio.Future[Ending]) -> None:
        """Wait as long as a refusal calls for, at most until the run closes; raise a permanent one."""
        said = refusal(error)
        if said in _BY_UPDATE and not self._by_update:
            self._by_update = True
        elif said is Refusal.TRUNCATED:
            self._ask_oldest = True
        elif said is Refusal.CANCELED:
            # The workflow cleans up after a cancellation; the next update has the events that it publishes meanwhile.
            self._by_update = True
            await asyncio.wait({watch}, timeout=_CANCELED_PAUSE)
        elif said is Refusal.DRAINING:
            await asyncio.wait({watch}, timeout=_DRAINING_PAUSE)
        else:
            if said in _BY_UPDATE or said is Refusal.ABSENT:
                # An update to a run that has just closed is answered with this too.
                await asyncio.wait({watch}, timeout=_CLOSE_GRACE)
            if not watch.done():
                self._pace.rest = update_pause(run.updates) if self._by_update else 0.0
                await self._recover(error, watch)

    def _took(self, result: PollResult, run_id: str) -> PollResult:
        first = result.items[0].offset if result.items else result.next_offset
        if first > self._offset and not self._asked_topics:
            self._tell_gap("truncated", first, run_id)
        # An offset in the future stays there; the query answers it with the end of the stream.
        self._offset = max(self._offset, result.next_offset)
        self._ask_oldest = False
        if self._topics and not self._asked_topics:
            return replace(result, items=[item for item in result.items if item.topic in self._topics])
        return result

    def _begin_anew(self, close: Ending) -> None:
        """Continue in a run without this one's events: at the first event that may differ."""
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
            logger.info("Workflow %s continues in run %s (%s); its stream restarts", self._workflow_id, run_id, reason)
        elif self._offset:
            logger.warning(
                "Events %d to %d of workflow %s were truncated before they were read",
                self._offset,
                resumed - 1,
                self._workflow_id,
            )

    async def _recover(self, error: Exception, watch: asyncio.Future[Ending] | None = None) -> None:
        """Wait before the next attempt, at most until the run closes; raise a permanent error."""
        said = refusal(error)
        if not said.is_transient:
            raise error
        if said is Refusal.USED_UP:
            self._outage.failed(f"{error}. {_NO_UPDATES_LEFT}", at_once=True)
        else:
            self._outage.failed(error)
        failing_for = self._outage.seconds
        if self._retry_timeout is not None and failing_for >= self._retry_timeout.total_seconds():
            raise StreamUnavailableError(
                f"workflow {self._workflow_id} could not be read for {failing_for:.0f} s: {error}"
            ) from error
        if watch is None:
            await self._backoff.wait()
        else:
            await asyncio.wait({watch}, timeout=self._backoff.pause())

    async def _drain(self, run: Run) -> AsyncGenerator[PollResult, None]:
        """Yield the rest of a closed run's stream."""
        self._drained = False
        self._backoff.reset()
        more = not self._by_update
        deadline = time.monotonic() + _DRAIN_TIMEOUT
        while more:
            try:
                answer = await run.read(self._asked_topics, self._offset, failures=self._backoff.failures, closed=True)
            except REFUSED as error:
                said = refusal(error)
                if said in _BY_UPDATE:
                    return
                if not said.is_transient:
                    raise
                # A run that closed before its first task has published nothing, and never answers.
                self._drained = said is Refusal.NEVER_BEGAN
                more = not self._drained and time.monotonic() < deadline
                if not (more or self._drained):
                    logger.warning("Workflow %s closed and cannot be read to its end: %s", self._workflow_id, error)
                await self._backoff.wait()
            else:
                self._backoff.reset()
                more = answer.result.more_ready
                self._drained = not more
                yield answer.result
                # The consumer may have taken its time.
                deadline = time.monotonic() + _DRAIN_TIMEOUT
