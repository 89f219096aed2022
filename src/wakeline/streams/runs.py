"""One run of a workflow, as its readers need it: ask it, and learn how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowHistoryEventFilterType,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.service import RPCError, RPCStatusCode

from wakeline.streams.queries import querying, when_not_busy
from wakeline.streams.rpc import backoff, is_transient
from wakeline.streams.shared import shared_work
from wakeline.streams.wire import POLL, PollInput, PollResult

# A worker that evicts a run may lose a query to it without a word, and a query without a worker hangs in the server:
# asking again soon is better than waiting. Longer after each failure, for a worker that is only slow.
_FIRST_QUERY_TIMEOUT = 2
_LAST_QUERY_TIMEOUT = 10
# Above the server's own long poll of 20 s.
_WATCH_TIMEOUT = timedelta(seconds=60)

_STATUS_OF_EVENT = {
    "workflow_execution_completed_event_attributes": WorkflowExecutionStatus.COMPLETED,
    "workflow_execution_failed_event_attributes": WorkflowExecutionStatus.FAILED,
    "workflow_execution_canceled_event_attributes": WorkflowExecutionStatus.CANCELED,
    "workflow_execution_terminated_event_attributes": WorkflowExecutionStatus.TERMINATED,
    "workflow_execution_timed_out_event_attributes": WorkflowExecutionStatus.TIMED_OUT,
    "workflow_execution_continued_as_new_event_attributes": WorkflowExecutionStatus.CONTINUED_AS_NEW,
}


@dataclass(frozen=True)
class RunClose:
    """How a run closed.

    Attributes:
        status: Its close status.
        failure: The failure's message, or the reason of a termination; otherwise empty.
        next_run_id: The run the workflow goes on as; otherwise empty.
        follows_by: Why it goes on. Only `continue_as_new` carries the stream over; after the others it begins anew.
    """

    status: WorkflowExecutionStatus
    failure: str = ""
    next_run_id: str = ""
    follows_by: Literal["continue_as_new", "retry", "cron", "reset"] | None = None


class Run:
    """One run. What readers in this process ask of it at the same time is asked once."""

    def __init__(self, client: Client, workflow_id: str, run_id: str) -> None:
        self.run_id = run_id
        self._handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
        self._queried: WorkflowHandle[Any, Any] = querying(client).get_workflow_handle(workflow_id, run_id=run_id)
        self._latest: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id)
        self._shared = shared_work(client)

    async def read(
        self, topics: tuple[str, ...], offset: int, *, delay: float = 0.0, failures: int = 0, closed: bool = False
    ) -> PollResult:
        """What is there from an offset on, asked by query in `delay` seconds.

        Args:
            topics: Topics wanted; empty for all.
            offset: First offset wanted.
            delay: Seconds to wait before asking.
            failures: How often asking has failed since it last went well.
            closed: The run is known to be closed, so that the answer is its last word. Such a question never shares
                the answer of one that was asked before.
        """
        seconds = min(_LAST_QUERY_TIMEOUT, _FIRST_QUERY_TIMEOUT * 2 ** min(failures, 10))

        async def query() -> PollResult:
            result: PollResult = await self._queried.query(
                POLL,
                PollInput(list(topics), offset),
                result_type=PollResult,
                rpc_timeout=timedelta(seconds=seconds),
            )
            return result

        async def answer() -> PollResult:
            return await when_not_busy(query, seconds)

        # A query that is cut off after it was sent makes its worker log a warning, so it runs to its end.
        return await self._shared.join(("query", self._key, topics, offset, closed), answer, delay=delay, finish=True)

    async def wait_for_events(self, topics: tuple[str, ...], offset: int, *, delay: float = 0.0) -> PollResult:
        """The same, by an update that waits for an event. It holds one of the ten the server allows a workflow."""

        async def update() -> PollResult:
            try:
                handle = await self._handle.start_update(
                    POLL,
                    PollInput(list(topics), offset),
                    wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                    result_type=PollResult,
                )
                result: PollResult = await handle.result()
                return result
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                if isinstance(error.__cause__, asyncio.CancelledError):
                    raise error.__cause__ from None
                raise

        return await self._shared.join(("update", self._key, topics, offset), update, delay=delay)

    async def closed(self) -> RunClose:
        """Wait until the run closes. Costs one waiting call to the server, however many wait, and no history.

        Raises:
            RPCError: The run is not there, or may not be read.
        """
        return await self._shared.join(("close", self._key), self._watch)

    @property
    def _key(self) -> tuple[str, str]:
        return self._handle.id, self.run_id

    async def _watch(self) -> RunClose:
        failures = 0
        while True:
            try:
                events = self._handle.fetch_history_events(
                    wait_new_event=True,
                    event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT,
                    skip_archival=True,
                    rpc_timeout=_WATCH_TIMEOUT,
                )
                async for event in events:
                    return await self._complete(_close_of(event))
            except RPCError as error:
                if not is_transient(error, reading=True):
                    raise
                failures += 1
                await asyncio.sleep(backoff(failures))

    async def _complete(self, close: RunClose) -> RunClose:
        """Add what a close event does not say: the status of a run that was retried, the run that a reset began."""
        try:
            if close.follows_by in ("retry", "cron"):
                status = (await self._handle.describe()).status
                return replace(close, status=status or close.status)
            if close.status == WorkflowExecutionStatus.TERMINATED:
                # A reset terminates the run and begins one of the same chain. Nothing else does both.
                latest = await self._latest.describe()
                if latest.run_id != self.run_id:
                    chains = [
                        d.raw_description.workflow_execution_info.first_run_id
                        for d in (latest, await self._handle.describe())
                    ]
                    if chains[0] == chains[1]:
                        return replace(close, next_run_id=latest.run_id or "", follows_by="reset")
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        return close


def _close_of(event: HistoryEvent) -> RunClose:
    kind = event.WhichOneof("attributes") or ""
    attributes = getattr(event, kind)
    status = _STATUS_OF_EVENT[kind]
    failure = attributes.failure.message if hasattr(attributes, "failure") else getattr(attributes, "reason", "")
    next_run_id: str = getattr(attributes, "new_execution_run_id", "")
    if not next_run_id:
        return RunClose(status, failure)
    if status == WorkflowExecutionStatus.CONTINUED_AS_NEW and attributes.workflow_type.name:
        return RunClose(status, "", next_run_id, "continue_as_new")
    # To clients that do not say otherwise, the server shows a failed, timed out or completed run that goes on (retry,
    # cron) as one that continued as new, but without what a workflow's own continue-as-new says.
    failed = (
        attributes.HasField("failure")
        if hasattr(attributes, "failure")
        else status != WorkflowExecutionStatus.COMPLETED
    )
    return RunClose(status, failure, next_run_id, "retry" if failed else "cron")
