"""Watches one run without its worker: that something happened in it, and how it ended.

A run that is watched *closely* costs one waiting call, which the server renews every 20 seconds: it follows the run's history.
A workflow's stream changes in workflow tasks alone, so the history tells when there may be something to read. Other runs are
described after a hint that something has happened (a sweep, a nudge), and now and then in any case.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any, Final

from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowHandle

from wakeline.background import wait_at_most
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.watching.asking import until_known
from wakeline.gateway.following.watching.attention import Attention
from wakeline.gateway.following.watching.children import Children
from wakeline.temporal.chains import describe
from wakeline.temporal.endings import Ending, closing_event, complete, forgotten, is_closing, read_ending
from wakeline.temporal.history import History, is_followed, pages

_RUNNING: Final = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
# Between two answers of a busy history: what happened meanwhile comes in one.
_PAUSE: Final = 0.01
_LOOK_SECONDS: Final = 600.0


class RunWatch:
    """One Temporal run, watched until it ends.

    Args:
        subject: The run.
        run_id: The Temporal run of its chain that is watched.
        attention: How closely.

    Attributes:
        tells: Its history is followed, so that `news` come without delay.
        unanswered: Its reader found nobody to answer: that a worker takes a task is news, too.
        history: What its history says, while it is followed.
        over: Set when it has ended.
        read: The last workflow task before which its stream was asked for, of those after which it has answered.
    """

    def __init__(self, subject: Subject, run_id: str, attention: Attention) -> None:
        self.tells = False
        self.unanswered = False
        self.history = History()
        self.over = asyncio.Event()
        self.read = 0
        self._connection = subject.connection
        self._workflow_id = subject.run.workflow_id
        self._run_id = run_id
        self._attention = attention
        self._looks = subject.parts.limits.looks
        self._children = Children(partial(subject.parts.child, subject))
        self._whole = False  # the history was followed from its first event to its last
        self.happened = 0
        """Grows when something may have happened."""
        self._told = asyncio.Event()

    def nudge(self) -> None:
        """Somebody says that something has happened."""
        self.happened += 1
        self._told.set()
        self._told = asyncio.Event()

    async def news(self, after: int, within: float) -> None:
        """Return when something has happened since `happened` was `after`, or in so many seconds."""
        if self.happened <= after:
            await wait_at_most(within, self._told.wait())

    @property
    def read_whole(self) -> bool:
        """Whether its stream was queried after its last workflow task had begun, and has answered.

        The server answers a query after the pending task, so the answer has all events of the run.
        """
        return self._whole and self.read == self.history.scheduled > 0

    async def pause(self, seconds: float) -> None:
        """Return in so many seconds, or when the run has ended."""
        await wait_at_most(seconds, self.over.wait())

    async def ended(self) -> Ending:
        """Return when the run has ended; an outage is waited out."""
        ending = await until_known(self._connection, self._observe)
        if ending is not None:
            self.over.set()
            self.nudge()
            completed = await until_known(self._connection, partial(self._complete, ending))
            if completed is not None:
                return completed
        await self._children.entered(self._reachable)
        return ending or forgotten()  # it may be known how it ended, and nothing else any more

    async def _observe(self) -> Ending | None:
        """Return how the run has ended; None if its attention has changed."""
        try:
            return await self._attention.while_so(self._follow() if self._attention.closely else self._look())
        finally:
            if self.tells:  # wake the reader, which relied on news without delay: from now on they may be late
                self.tells = False
                self.nudge()

    async def _complete(self, ending: Ending) -> Ending:
        """Have the children of the ended run followed, and return its ending with what follows it."""
        if not self._whole:
            async with self._looks:
                await self._children.read(self._handle)
        await self._children.entered(self._reachable)
        return await complete(self._connection.client, self._workflow_id, self._run_id, ending)

    def _reachable(self) -> bool:
        return self._connection.up() and self._connection.calm()

    @property
    def _handle(self) -> WorkflowHandle[Any, Any]:
        return self._connection.client.get_workflow_handle(self._workflow_id, run_id=self._run_id)

    async def describe(self) -> DescribeWorkflowExecutionResponse:
        """The run as it is now.

        Raises:
            RPCError: Temporal cannot be asked now, or does not know the run.
        """
        await self._connection.until_calm()
        return await describe(self._connection.client, self._workflow_id, self._run_id)

    async def _look(self) -> Ending | None:
        """Look whether it has ended: now, and whenever somebody says that something has happened."""
        while True:
            after = self.happened
            async with self._looks:
                if (await self.describe()).workflow_execution_info.status != _RUNNING:
                    return await closing_event(self._connection.client, self._workflow_id, self._run_id)
            await self.news(after, _LOOK_SECONDS * random.uniform(0.5, 1))

    async def _follow(self) -> Ending | None:
        """Follow the history to its end."""
        info = (await self.describe()).workflow_execution_info
        follows = is_followed(info)
        self.history = History()
        self.tells = follows
        self.nudge()  # what is in the history by now may be read at once
        seen = 0
        async for page in pages(self._handle, whole=follows):
            news = False
            for event in page:
                if is_closing(event):
                    self._whole = follows
                    return read_ending(event)
                self._children.note(event)
                seen = event.event_id
                news |= self.history.note(event, old=seen <= info.history_length)
                news |= self.unanswered and self.history.started == seen
            if news and seen > info.history_length:
                self.nudge()
            if page and seen >= info.history_length:
                await asyncio.sleep(_PAUSE)
        return None
