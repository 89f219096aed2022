"""One run of a workflow, as its readers need it: ask it, and learn how it ends."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median
from typing import Any, Literal

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowHistoryEventFilterType,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from wakeline.streams.budget import UPDATES_PER_RUN
from wakeline.streams.places import MOST_LET_GO, Places
from wakeline.streams.queries import querying, when_not_busy
from wakeline.streams.rpc import backoff, is_let_go, is_transient, is_update_limit, is_waiting_limit
from wakeline.streams.shared import SharedWork
from wakeline.streams.wire import POLL, PollInput, PollResult

# A worker that evicts a run may lose a query to it without a word, and a query without a worker hangs in the server:
# asking again soon is better than waiting. Longer after each failure, for a worker that is only slow.
_FIRST_QUERY_TIMEOUT = 2
_LAST_QUERY_TIMEOUT = 10
# Above the server's own long poll of 20 s.
_WATCH_TIMEOUT = timedelta(seconds=60)
# What has been followed for so long and breaks off is taken up again as soon as after a first failure.
_LASTED = 30.0
# A history is followed from its beginning. Temporal suggests to continue as new at 4 MB; longer ones are not followed.
_MOST_HISTORY_BYTES = 5_000_000

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


@dataclass(frozen=True)
class Answer:
    """What a run answered to a query.

    Attributes:
        result: The answer.
        task: It knows all up to this workflow task, see `Run.task`.
        seconds: How long an answer takes these days.
    """

    result: PollResult
    task: int
    seconds: float


class Run:
    """One run, shared by the readers that use one client: what they ask at the same time is asked once.

    Attributes:
        run_id: The run.
        tells: Whether its history is followed, so that `task` is told without delay.
        task: The latest workflow task it is known to have had, by the number of its first history event. A stream
            changes in workflow tasks alone, so who has read after this one has read everything.
        updates: How many updates it is known to have taken.
        places: What is known of the places that updates wait in.
    """

    def __init__(self, client: Client, workflow_id: str, run_id: str) -> None:
        self.run_id = run_id
        self.tells = False
        self.task = 0
        self.updates = 0
        self.places = Places()
        self._is_updated = False
        self._handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
        self._asked: WorkflowHandle[Any, Any] = querying(client).get_workflow_handle(workflow_id, run_id=run_id)
        self._latest: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id)
        self._shared = SharedWork()
        # How long the last queries took. One slow answer, such as a new run's first, does not make a slow host.
        self._seconds = deque([0.0] * 3, maxlen=3)

    async def read(
        self,
        topics: tuple[str, ...],
        offset: int,
        *,
        after: int = 0,
        within: float = 0.0,
        failures: int = 0,
        closed: bool = False,
    ) -> Answer:
        """What is there from an offset on, asked by query.

        Args:
            topics: Topics wanted; empty for all.
            offset: First offset wanted.
            after: Ask as soon as there is a workflow task after this one,
            within: or in so many seconds.
            failures: How often asking has failed since it last went well.
            closed: The run is known to be closed, so that the answer is its last word. Such a question never shares
                the answer of one that was asked before.
        """
        seconds = min(_LAST_QUERY_TIMEOUT, _FIRST_QUERY_TIMEOUT * 2 ** min(failures, 10))

        async def query() -> PollResult:
            result: PollResult = await self._asked.query(
                POLL,
                PollInput(list(topics), offset),
                result_type=PollResult,
                rpc_timeout=timedelta(seconds=seconds),
            )
            return result

        async def answer() -> Answer:
            # The server lets a query wait for the workflow task that is due, so the answer knows what that one did.
            task, asked = self.task, time.monotonic()
            result = await when_not_busy(query, seconds)
            self._seconds.append(time.monotonic() - asked)
            return Answer(result, task, median(self._seconds))

        # A query that is cut off after it was sent makes its worker log a warning, so it runs to its end.
        delay = 0.0 if self.task > after else within
        return await self._shared.join(("query", topics, offset, closed), answer, delay=delay, finish=True)

    async def wait_for_events(self, topics: tuple[str, ...], offset: int) -> PollResult:
        """The same, by an update that waits for an event.

        Of updates a run takes few, and a server lets only ten of them wait in a workflow, see `Places`. Who finds no
        place asks again when the others have been answered, and the later the more often it came too late then.
        """
        self._is_updated = True

        async def update() -> PollResult:
            tries, throng, pauses = 0, 0, backoff()
            await asyncio.sleep(self.places.first_pause())
            while True:
                if not self.places.are_taken(tries):
                    try:
                        result = await self._update(topics, offset)
                    except RPCError as error:
                        if is_waiting_limit(error):
                            self.places.refused(error)
                        elif not (is_let_go(error) and tries < MOST_LET_GO):
                            raise
                    else:
                        break
                self.places.missed()
                tries += 1
                task = self.task
                await self._shared.join(("place",), _nothing, delay=pauses.pause())
                throng = throng + 1 if self.task > task else 0
                await asyncio.sleep(self.places.pause(throng))
            if not self.tells:
                self.updates += 1
            return result

        return await self._shared.join(("update", topics, offset), update)

    async def _update(self, topics: tuple[str, ...], offset: int) -> PollResult:
        try:
            result: PollResult = await self._asked.execute_update(
                POLL, PollInput(list(topics), offset), result_type=PollResult
            )
            return result
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            if isinstance(error.__cause__, asyncio.CancelledError):
                raise error.__cause__ from None
            raise
        except RPCError as error:
            if is_update_limit(error):
                self.updates = max(self.updates, UPDATES_PER_RUN)
            raise

    async def closed(self) -> RunClose:
        """Wait until the run closes. Costs one waiting call to the server, however many wait, and no history.

        The same call follows the history, where that is not too long to begin with, and so tells of each workflow task.

        Raises:
            RPCError: The run is not there, or may not be read.
        """
        return await self._shared.join(("close",), self._watch)

    async def _watch(self) -> RunClose:
        pauses = backoff()
        while True:
            began = time.monotonic()
            try:
                if (close := await self._follow()) is not None:
                    return close
            except RPCError as error:
                if not is_transient(error, reading=True):
                    raise
            finally:
                self.tells = False
                self.places.taken = 0
            # Whoever waits to be told waits in vain.
            self._shared.hurry()
            if time.monotonic() - began >= _LASTED:
                pauses.reset()
            await pauses.wait()

    async def _follow(self) -> RunClose | None:
        described = (await self._handle.describe()).raw_description.workflow_execution_info
        is_open = described.status == int(WorkflowExecutionStatus.RUNNING)
        self.tells = is_open and described.history_size_bytes <= _MOST_HISTORY_BYTES
        # What there is of the history was there before anything that is asked from here on.
        self._heard_of_task(described.history_length)
        kinds = WorkflowHistoryEventFilterType
        events = self._handle.fetch_history_events(
            wait_new_event=True,
            event_filter_type=kinds.ALL_EVENT if self.tells else kinds.CLOSE_EVENT,
            skip_archival=True,
            rpc_timeout=_WATCH_TIMEOUT,
        )
        updates = waiting = 0
        while True:
            await events.fetch_next_page()
            before = self.task
            for event in events.current_page or ():
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
                    self._heard_of_task(event.event_id)
                elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                    updates += 1
                    waiting += 1
                    self.updates = max(self.updates, updates)
                elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
                    waiting -= 1
                elif event.WhichOneof("attributes") in _STATUS_OF_EVENT:
                    return await self._complete(_close_of(event))
            self.places.taken = waiting
            if events.next_page_token is None:
                return None
            if self.task > before and not self._is_updated:
                # Who reads now need not hear of the next task before it is done.
                await asyncio.sleep(median(self._seconds))

    def _heard_of_task(self, task: int) -> None:
        if task > self.task:
            self.task = task
            self._shared.hurry()

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


_runs: weakref.WeakValueDictionary[tuple[asyncio.AbstractEventLoop, Client, str, str], Run] = (
    weakref.WeakValueDictionary()
)


async def _nothing() -> None:
    pass


def run_of(client: Client, workflow_id: str, run_id: str) -> Run:
    """The run, the same one for all readers that use this client in this event loop."""
    # What readers share are tasks, and a task belongs to its loop.
    key = (asyncio.get_running_loop(), client, workflow_id, run_id)
    return _runs.setdefault(key, Run(client, workflow_id, run_id))


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
