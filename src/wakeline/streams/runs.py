"""One run of a workflow for its readers: polls it, and reports how it ends."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median
from typing import Any

from temporalio.client import Client, WorkflowHandle, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from wakeline.streams.budget import UPDATES_PER_RUN
from wakeline.streams.places import MOST_LET_GO, Places
from wakeline.streams.shared import SharedWork
from wakeline.streams.wire import POLL, PollInput, PollResult
from wakeline.temporal.endings import Ending, is_closing, read_ending, with_reset
from wakeline.temporal.failures import backoff, is_transient
from wakeline.temporal.history import History, is_followed, pages
from wakeline.temporal.queries import querying, when_not_busy
from wakeline.temporal.refusals import Refusal, refusal

# A worker that evicts a run may lose a query to it without an error, and a query without a worker hangs in the server:
# asking again soon is better than waiting. Longer after each failure, for a worker that is only slow.
_FIRST_QUERY_TIMEOUT = 2
_LAST_QUERY_TIMEOUT = 10
# A history that was followed for so long and breaks off is followed again as soon as after a first failure.
_LASTED = 30.0


@dataclass(frozen=True)
class Answer:
    """The answer of a run to a query.

    Attributes:
        result: The answer.
        task: It has all events up to this workflow task, see `Run.task`.
        seconds: How long an answer takes these days.
    """

    result: PollResult
    task: int
    seconds: float


class Run:
    """One run, shared by the readers of one client: simultaneous polls are sent once.

    Attributes:
        run_id: The run.
        tells: Whether its history is followed, so that `task` is up to date.
        task: The latest known workflow task, by the number of its first history event. A stream changes in workflow
            tasks alone, so a reader that has read after this one has read everything.
        updates: How many updates it is known to have accepted.
        places: The places in which updates wait.
    """

    def __init__(self, client: Client, workflow_id: str, run_id: str) -> None:
        self.run_id = run_id
        self.tells = False
        self.task = 0
        self.updates = 0
        self.places = Places()
        self._is_updated = False
        self._client = client
        self._handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
        self._asked: WorkflowHandle[Any, Any] = querying(client).get_workflow_handle(workflow_id, run_id=run_id)
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
        """Return the events from an offset on, by query.

        Args:
            topics: Topics wanted; empty for all.
            offset: First offset wanted.
            after: Ask as soon as there is a workflow task after this one,
            within: or in so many seconds.
            failures: How often asking has failed in a row.
            closed: Whether the run is known to be closed, so that the answer is final. Such a question never shares
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
            # The server lets a query wait for the workflow task that is due, so the answer includes its effects.
            task, asked = self.task, time.monotonic()
            result = await when_not_busy(query, seconds)
            self._seconds.append(time.monotonic() - asked)
            return Answer(result, task, median(self._seconds))

        # A query that is cut off after it was sent makes its worker log a warning, so it runs to its end.
        delay = 0.0 if self.task > after else within
        return await self._shared.join(("query", topics, offset, closed), answer, delay=delay, finish=True)

    async def wait_for_events(self, topics: tuple[str, ...], offset: int) -> PollResult:
        """Return the events from an offset on, by an update that waits for one.

        A run accepts few updates, and a server lets only ten of them wait in a workflow, see `Places`. A reader that
        finds no place asks again when the others have been answered, and the later the more often it was too late.
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
                        said = refusal(error)
                        if said is Refusal.FULL:
                            self.places.refused(error)
                        elif said is not Refusal.DROPPED or tries >= MOST_LET_GO:
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
            if refusal(error) is Refusal.USED_UP:
                self.updates = max(self.updates, UPDATES_PER_RUN)
            raise

    async def closed(self) -> Ending:
        """Wait until the run closes: one waiting call to the server, however many wait.

        The same call follows the history, unless that is too long to begin with, and so shows each workflow task.

        Raises:
            RPCError: The run is not there, or may not be read.
        """
        return await self._shared.join(("close",), self._watch)

    async def _watch(self) -> Ending:
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
            # The history is no longer followed: readers that wait for a task poll by themselves.
            self._shared.hurry()
            if time.monotonic() - began >= _LASTED:
                pauses.reset()
            await pauses.wait()

    async def _follow(self) -> Ending | None:
        described = (await self._handle.describe()).raw_description.workflow_execution_info
        self.tells = is_followed(described)
        # The history so far is older than every poll from here on.
        self._heard_of_task(described.history_length)
        history = History()
        async for page in pages(self._handle, whole=self.tells):
            before = self.task
            for event in page:
                if is_closing(event):
                    return await self._complete(read_ending(event))
                if history.note(event, old=True):
                    self._heard_of_task(event.event_id)
            self.updates = max(self.updates, history.updates)
            self.places.taken = history.waiting
            if self.task > before and not self._is_updated:
                # A reader that polls now need not be woken for the next task before this poll is done.
                await asyncio.sleep(median(self._seconds))
        return None

    def _heard_of_task(self, task: int) -> None:
        if task > self.task:
            self.task = task
            self._shared.hurry()

    async def _complete(self, ending: Ending) -> Ending:
        """Add to an ending the status of a retried run, or the run that a reset began.

        The close event has neither.
        """
        try:
            if ending.follows_by in ("retry", "cron"):
                return replace(ending, closed_as=(await self._handle.describe()).status or ending.closed_as)
            if ending.status == "terminated":
                return await with_reset(self._client, self._handle.id, self.run_id, ending)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        return ending


_runs: weakref.WeakValueDictionary[tuple[asyncio.AbstractEventLoop, Client, str, str], Run] = (
    weakref.WeakValueDictionary()
)


async def _nothing() -> None:
    pass


def run_of(client: Client, workflow_id: str, run_id: str) -> Run:
    """Return the run: the same object for all readers of this client in this event loop."""
    # Readers share tasks, and a task belongs to its loop.
    key = (asyncio.get_running_loop(), client, workflow_id, run_id)
    return _runs.setdefault(key, Run(client, workflow_id, run_id))
